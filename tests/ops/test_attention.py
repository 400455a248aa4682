# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops import blocked_attention as blocked
from lmjax.ops.attention import Sight, attend, attend_in, look_back
from lmjax.ops.blocked_attention import blocked_attention

B, T, H, G, K = 2, 11, 6, 2, 4
STARTS = jnp.array([[0] * 11, [0, 0, 0, 3, 3, 5, 5, 5, 5, 9, 9]])
PLACES = jnp.broadcast_to(jnp.arange(T), (B, T))


def full(query, key, value, seen_BTS):
  """Attention with a stored mask, differentiated by JAX."""
  heads = query.shape[2] // key.shape[2]
  key, value = (jnp.repeat(x, heads, axis=2) for x in (key, value))
  scores = jnp.einsum("bthk,bshk->bhts", query, key) / query.shape[-1] ** 0.5
  scores = jnp.where(seen_BTS[:, None], scores, -jnp.inf)
  weights = jax.nn.softmax(scores, axis=-1)
  return jnp.einsum("bhts,bshk->bthk", weights, value)


def seen_by(sight, num_keys):
  if sight is None:
    return jnp.tril(jnp.ones((B, T, num_keys), bool))
  keys = sight.query_BT if sight.key_BS is None else sight.key_BS
  seen = keys[:, None] <= sight.query_BT[..., None]
  return seen & (keys[:, None] >= sight.lowest_BT[..., None])


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
SIGHTS = {
  "causal": (None, 0),
  "window": (None, 3),
  "packed": (look_back(PLACES, STARTS), 0),
  "packed window": (look_back(PLACES, STARTS, window=3), 3),
  "cache": (
    look_back(BEHIND, 0 * BEHIND, jnp.concatenate([RING, BEHIND], 1), 6),
    6,
  ),
}


@pytest.mark.parametrize("kind", SIGHTS)
@pytest.mark.parametrize(
  ("block", "unrolled"), [(3, 99), (3, 0), (4, 99), (64, 99)]
)
def test_blocks_and_their_gradients_equal_full_attention(
  kind, block, unrolled, monkeypatch
):
  monkeypatch.setattr(blocked, "_MAX_UNROLLED", unrolled)
  sight, window = SIGHTS[kind]
  with jax.enable_x64(True):
    num_keys = T + 5 if kind == "cache" else T
    *arguments, cotangent = draw(jnp.float64, num_keys)
    seen = seen_by(sight, num_keys)
    if kind == "window":
      seen &= jnp.triu(jnp.ones((T, T), bool), -2)
    positions, aligned = None, True
    if sight is not None:
      aligned = sight.key_BS is None
      keys = sight.query_BT if aligned else sight.key_BS
      positions = (sight.query_BT, sight.lowest_BT, keys)

    def ours(*a):
      return blocked_attention(
        *a, positions, aligned=aligned, window=window, block=block
      )

    results = with_gradients(ours, arguments, cotangent)
    expected = with_gradients(lambda *a: full(*a, seen), arguments, cotangent)
    for a, b in zip(results, expected, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("kind", SIGHTS)
def test_attend_equals_full_attention(kind):
  sight, window = SIGHTS[kind]
  num_keys = T + 5 if kind == "cache" else T
  query, key, value, _ = draw(jnp.float32, num_keys)
  seen = seen_by(sight, num_keys)
  if kind == "window":
    seen &= jnp.triu(jnp.ones((T, T), bool), -2)
  out = jax.jit(attend, static_argnums=4)(query, key, value, sight, window)
  np.testing.assert_allclose(out, full(query, key, value, seen), atol=1e-6)
  half = [x.astype(jnp.bfloat16) for x in (query, key, value)]
  rounded = jax.jit(attend, static_argnums=4)(*half, sight, window)
  assert rounded.dtype == jnp.bfloat16
  assert 0 < np.abs(out - rounded.astype(jnp.float32)).max() < 0.05


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_query_a_row_equals_the_last_of_many(dtype):
  sight, _ = SIGHTS["cache"]
  query, key, value, _ = draw(dtype, T + 5)
  last = Sight(sight.query_BT[:, -1:], sight.lowest_BT[:, -1:], sight.key_BS)
  cached = tuple(jnp.swapaxes(x, 1, 2) for x in (key, value))
  out = attend_in(query[:, -1:], cached, last)
  assert out.dtype == dtype
  np.testing.assert_allclose(
    out.astype(jnp.float32),
    attend(query, key, value, sight)[:, -1:].astype(jnp.float32),
    atol=1e-6 if dtype == jnp.float32 else 0.02,
  )


def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient():
  query, key, value, cotangent = draw(jnp.float32)
  sight = Sight(PLACES, PLACES.at[1, 4].set(99), PLACES)
  out, vjp = jax.vjp(lambda *a: attend(*a, sight), query, key, value)
  assert not out[1, 4].any() and out[1, 3].any()
  gradients = vjp(cotangent)
  assert not gradients[0][1, 4].any()
  assert all(np.isfinite(g).all() for g in gradients)


def test_look_back_as_documented():
  positions, starts = jnp.array([[0, 1, 2, 3]]), jnp.array([[0, 0, 0, 3]])
  lowest = look_back(positions, starts, window=2).lowest_BT
  np.testing.assert_array_equal(lowest, [[0, 0, 1, 3]])


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
    sight = look_back(places, 0 * places) if kind == "packed" else None

    def loss(query, key, value):
      return jnp.sum(attend(query, key, value, sight) ** 2)

    grad = jax.jit(jax.grad(loss, (0, 1, 2)))
    analysis = grad.lower(x, x, x).compile().memory_analysis()
    return analysis.temp_size_in_bytes

  assert bytes_needed(4096) < 2.2 * bytes_needed(2048)
