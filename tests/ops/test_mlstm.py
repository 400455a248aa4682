# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.mlstm import Memory, empty_memory, mlstm

B, T, H, K = 2, 7, 3, 4


def loop(query, key, value, input_gate, forget_gate, resets):
  """The recurrence of the paper as it stands, without stabilisers."""
  values, keys = jnp.zeros((B, H, K, K)), jnp.zeros((B, H, K))
  read = []
  for t in range(T):
    keep = 1.0 - resets[:, t, None]
    forget = keep * jax.nn.sigmoid(forget_gate[:, t])
    weight = jnp.exp(input_gate[:, t])
    outer = jnp.einsum("bhk,bhj->bhkj", key[:, t], value[:, t])
    values = forget[..., None, None] * values + weight[..., None, None] * outer
    keys = forget[..., None] * keys + weight[..., None] * key[:, t]
    q = query[:, t] / K**0.5
    found = jnp.abs(jnp.einsum("bhk,bhk->bh", q, keys))
    top = jnp.einsum("bhk,bhkj->bhj", q, values)
    read.append(top / jnp.maximum(found, 1.0)[..., None])
  return jnp.stack(read, axis=1)


def example():
  rng = np.random.default_rng(0)
  qkv = [rng.normal(size=(B, T, H, K)) for _ in range(3)]
  gates = [rng.normal(size=(B, T, H)) * 3 for _ in range(2)]
  return (*qkv, *gates), rng.random((B, T)) < 0.3, rng


def empty():
  return jax.tree.map(jnp.float64, empty_memory(B, H, K))


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_values_and_gradients_equal_autodiff_of_a_loop(chunk):
  """7 is one chunk, 3 needs padding, 1 is step by step."""
  with jax.enable_x64(True):
    arguments, resets, rng = example()
    cotangent = rng.normal(size=(B, T, H, K))

    def chunked(*arguments):
      return mlstm(*arguments, empty(), resets, chunk=chunk)[0]

    results = []
    for function in (chunked, lambda *a: loop(*a, resets)):
      out, vjp = jax.vjp(function, *arguments)
      results.append((out, vjp(cotangent)))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_pieces_equal_the_whole_whatever_their_chunks():
  with jax.enable_x64(True):
    arguments, resets, _ = example()
    whole, last = mlstm(*arguments, empty(), resets, chunk=4)
    memory, pieces = empty(), []
    for start, stop in ((0, 1), (1, 6), (6, 7)):
      piece = [x[:, start:stop] for x in (*arguments, resets)]
      out, memory = mlstm(*piece[:-1], memory, piece[-1], chunk=2)
      pieces.append(out)
    np.testing.assert_allclose(whole, jnp.concatenate(pieces, 1), rtol=1e-9)
    for a, b in zip(last, memory, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9)


def test_gates_as_large_as_they_may_get_overflow_nowhere():
  (query, key, value, _, _), resets, _ = example()
  for size in (-200.0, 200.0):
    gates = (jnp.full((B, T, H), size), jnp.full((B, T, H), -size))

    def total(query, gates=gates):
      out, memory = mlstm(
        query, key, value, *gates, empty_memory(B, H, K), resets, chunk=3
      )
      return jnp.sum(out), memory

    (out, memory), slope = jax.value_and_grad(total, has_aux=True)(query)
    for leaf in (out, slope, *memory):
      assert np.isfinite(leaf).all()


def test_the_scale_of_a_memory_changes_nothing():
  with jax.enable_x64(True):
    arguments, _, rng = example()
    memory = Memory(
      rng.normal(size=(B, H, K, K)),
      rng.normal(size=(B, H, K)),
      rng.normal(size=(B, H)),
    )
    shift = rng.normal(size=(B, H))
    shrink = jnp.exp(-shift)
    other = Memory(
      memory.values_BHKJ * shrink[..., None, None],
      memory.keys_BHK * shrink[..., None],
      memory.scale_BH + shift,
    )
    ours, theirs = (mlstm(*arguments, m, chunk=3)[0] for m in (memory, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
