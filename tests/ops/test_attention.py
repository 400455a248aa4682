# SPDX-License-Identifier: Apache-2.0
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops import blocked_attention as blocked
from lmjax.ops.attention import attend, attend_to_cache, attention_weights
from lmjax.ops.attention_range import AttentionRange, causal_range, run_ends
from lmjax.ops.blocked_attention import blocked_attention

B, T, H, G, K = 2, 11, 6, 2, 4
STARTS = jnp.array([[0] * 11, [0, 0, 0, 3, 3, 5, 5, 5, 5, 9, 9]])
PLACES = jnp.broadcast_to(jnp.arange(T), (B, T))


def full(query, key, value, seen_BTS, bias_HN=None):
  """Attention with a stored mask, differentiated by JAX."""
  heads = query.shape[2] // key.shape[2]
  key, value = (jnp.repeat(x, heads, axis=2) for x in (key, value))
  scores = jnp.einsum("bthk,bshk->bhts", query, key) / query.shape[-1] ** 0.5
  if bias_HN is not None:
    time, number = scores.shape[2:]
    query_place = number - time + np.arange(time)  # the last ones are level
    distance = query_place[:, None] - np.arange(number)
    scores += bias_HN[None, :, distance + time - 1]
  scores = jnp.where(seen_BTS[:, None], scores, -jnp.inf)
  weights = jax.nn.softmax(scores, axis=-1)
  return jnp.einsum("bhts,bshk->bthk", weights, value)


class Case(NamedTuple):
  attention_range: AttentionRange | None
  num_keys: int = T
  window: int = 0
  causal: bool = True
  biased: bool = False

  def seen(self):
    if self.attention_range is None and not self.causal:
      return jnp.ones((B, T, self.num_keys), bool)
    if self.attention_range is None:
      seen = jnp.tril(jnp.ones((B, T, T), bool))
      return jnp.triu(seen, 1 - self.window) if self.window else seen
    highest, lowest, keys = self.attention_range
    keys = highest if keys is None else keys
    seen = keys[:, None] <= highest[..., None]
    return seen & (keys[:, None] >= lowest[..., None])

  def bias(self, dtype=jnp.float32):
    number = self.num_keys + T - 1
    bias = np.random.default_rng(9).normal(size=(H, number))
    return jnp.array(bias, dtype) if self.biased else None


def draw(dtype, num_keys=T, seed=0):
  rng = np.random.default_rng(seed)
  shapes = (B, T, H, K), (B, num_keys, G, K), (B, num_keys, G, K), (B, T, H, K)
  return [jnp.array(rng.normal(size=shape), dtype) for shape in shapes]


def with_gradients(function, arguments, cotangent):
  @jax.jit
  def both(arguments, cotangent):
    out, vjp = jax.vjp(function, *arguments)
    return out, *vjp(cotangent)

  return both(arguments, cotangent)


# Rings of a cache: some slots hold nothing, the order of the others is turned.
RING = jnp.array([[6, 7, 8, 4, 5], [-2, -1, 0, -4, -3]])
BEHIND = PLACES + jnp.array([[9], [1]])
CACHE = causal_range(BEHIND, 0 * BEHIND, jnp.concatenate([RING, BEHIND], 1), 6)
PREFIX = jnp.array([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [1] * 6 + [0] * 5])
RUNS = run_ends(PLACES, STARTS, PREFIX.astype(bool))
PADDED = jnp.where(jnp.arange(T + 5)[None] < jnp.array([[T + 5], [4]]), 0, -1)
CASES = {
  "causal": Case(None),
  "window": Case(None, window=3),
  "packed": Case(causal_range(PLACES, STARTS)),
  "packed window": Case(causal_range(PLACES, STARTS, window=3), window=3),
  "cache": Case(CACHE, T + 5, window=6),
  "prefix": Case(AttentionRange(RUNS, STARTS, PLACES)),
  "both sides": Case(None, T + 5, causal=False),
  "padded": Case(
    AttentionRange(0 * PLACES, 0 * PLACES, PADDED), T + 5, causal=False
  ),
  "causal, biased": Case(None, biased=True),
  "cache, biased": Case(CACHE, T + 5, biased=True),
}


@pytest.mark.parametrize(
  ("kind", "block", "unrolled"),
  [
    *((kind, 4, 99) for kind in CASES),
    *((kind, 3, 0) for kind in CASES),
    ("causal", 64, 99),
    ("cache, biased", 64, 99),
  ],
)
def test_blocks_and_their_gradients_equal_full_attention(
  kind, block, unrolled, monkeypatch
):
  monkeypatch.setattr(blocked, "_MAX_UNROLLED", unrolled)
  case = CASES[kind]
  with jax.enable_x64(True):
    *arguments, cotangent = draw(jnp.float64, case.num_keys)
    if case.biased:
      arguments.append(case.bias(jnp.float64))
    positions, aligned = None, case.causal
    if case.attention_range is not None:
      aligned = case.attention_range.key_BS is None
      keys = (
        case.attention_range.highest_BT
        if aligned
        else case.attention_range.key_BS
      )
      positions = (
        case.attention_range.highest_BT,
        case.attention_range.lowest_BT,
        keys,
      )

    def ours(query, key, value, bias=None):
      return blocked_attention(
        query,
        key,
        value,
        positions,
        bias_HN=bias,
        aligned=aligned,
        window=case.window,
        block=block,
      )

    def theirs(query, key, value, bias=None):
      return full(query, key, value, case.seen(), bias)

    results = with_gradients(ours, arguments, cotangent)
    expected = with_gradients(theirs, arguments, cotangent)
    for a, b in zip(results, expected, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_attend_equals_full_attention(kind):
  case = CASES[kind]
  query, key, value, _ = draw(jnp.float32, case.num_keys)
  how = (case.attention_range, case.window, case.causal, case.bias())

  @jax.jit
  def run(query, key, value):
    weights = attention_weights(query, key, *how)
    return attend(query, key, value, *how), weights

  out, weights = run(query, key, value)
  expected = full(query, key, value, case.seen(), how[-1])
  np.testing.assert_allclose(out, expected, atol=1e-6)
  repeated = jnp.repeat(value, H // G, axis=2)
  averaged = jnp.einsum("bhts,bshk->bthk", weights, repeated)
  np.testing.assert_allclose(averaged, out, atol=1e-6)
  rounded, _ = run(*(x.astype(jnp.bfloat16) for x in (query, key, value)))
  assert rounded.dtype == jnp.bfloat16
  assert 0 < np.abs(out - rounded.astype(jnp.float32)).max() < 0.05


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_query_a_row_equals_the_last_of_many(dtype):
  attention_range = CACHE
  query, key, value, _ = draw(dtype, T + 5)
  last = AttentionRange(
    attention_range.highest_BT[:, -1:],
    attention_range.lowest_BT[:, -1:],
    attention_range.key_BS,
  )
  cached = tuple(jnp.swapaxes(x, 1, 2) for x in (key, value))
  out = attend_to_cache(query[:, -1:], cached, last)
  assert out.dtype == dtype
  np.testing.assert_allclose(
    out.astype(jnp.float32),
    attend(query, key, value, attention_range)[:, -1:].astype(jnp.float32),
    atol=1e-6 if dtype == jnp.float32 else 0.02,
  )


def test_one_query_a_row_finds_the_biases_of_a_ring():
  """Slots are in any order; what is added goes by their positions."""
  query, key, value, _ = draw(jnp.float32, T)
  bias_HN = jnp.array(np.random.default_rng(9).normal(size=(H, T)))
  turn = lambda x: jnp.roll(x, 4, axis=1)  # noqa: E731
  last = AttentionRange(PLACES[:, -1:], PLACES[:, 2:3], turn(PLACES))
  cached = tuple(jnp.swapaxes(turn(x), 1, 2) for x in (key, value))
  out = attend_to_cache(query[:, -1:], cached, last, bias_HN)
  seen = PLACES[:, None] >= 2
  expected = full(query[:, -1:], key, value, seen, bias_HN)
  np.testing.assert_allclose(out, expected, atol=1e-6)


def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient():
  query, key, value, cotangent = draw(jnp.float32)
  attention_range = AttentionRange(PLACES, PLACES.at[1, 4].set(99), PLACES)
  out, vjp = jax.vjp(lambda *a: attend(*a, attention_range), query, key, value)
  assert not out[1, 4].any() and out[1, 3].any()
  gradients = vjp(cotangent)
  assert not gradients[0][1, 4].any()
  assert all(np.isfinite(g).all() for g in gradients)


def test_blocks_that_the_mask_hides_are_left_out():
  options = blocked._Options(block=2, window=2, aligned=True)
  pairs = [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]
  assert blocked._pairs(options, 3, 3) == pairs
  wide = options._replace(window=3)
  assert blocked._pairs(wide, 3, 3) == pairs
  assert (2, 0) in blocked._pairs(options._replace(window=4), 3, 3)


@pytest.mark.parametrize("kind", ["causal", "packed"])
def test_memory_grows_linearly_with_the_length(kind):
  def bytes_needed(time):
    x = jnp.zeros((1, time, 2, 4))
    places = jnp.arange(time)[None]
    attention_range = (
      causal_range(places, 0 * places) if kind == "packed" else None
    )

    def loss(query, key, value):
      return jnp.sum(attend(query, key, value, attention_range) ** 2)

    grad = jax.jit(jax.grad(loss, (0, 1, 2)))
    analysis = grad.lower(x, x, x).compile().memory_analysis()
    return analysis.temp_size_in_bytes

  assert bytes_needed(4096) < 2.2 * bytes_needed(2048)
