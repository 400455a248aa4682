# SPDX-License-Identifier: Apache-2.0
import functools
from pathlib import Path

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


@pytest.mark.parametrize("chunk", [3, 7])
def test_values_and_gradients_equal_autodiff_of_a_loop(chunk):
  """7 is one chunk, 3 needs padding."""
  with jax.enable_x64(True):
    arguments, resets, rng = example()
    cotangent = rng.normal(size=(B, T, H, K))

    def chunked(*arguments):
      return mlstm(*arguments, empty(), resets, chunk=chunk)[0]

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(function, arguments):
      out, vjp = jax.vjp(function, *arguments)
      return out, vjp(cotangent)

    functions = chunked, lambda *a: loop(*a, resets)
    results = [with_gradients(function, arguments) for function in functions]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_pieces_equal_the_whole_whatever_their_chunks():
  with jax.enable_x64(True):
    arguments, resets, _ = example()
    run = jax.jit(mlstm, static_argnames="chunk")
    whole, last = run(*arguments, empty(), resets, chunk=4)
    memory, pieces = empty(), []
    for start, stop in ((0, 1), (1, 6), (6, 7)):  # steps, and uneven chunks
      piece = [x[:, start:stop] for x in (*arguments, resets)]
      out, memory = run(*piece[:-1], memory, piece[-1], chunk=2)
      pieces.append(out)
    np.testing.assert_allclose(whole, jnp.concatenate(pieces, 1), rtol=1e-9)
    for a, b in zip(last, memory, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9)


def test_gates_as_large_as_they_may_get_overflow_nowhere():
  (query, key, value, _, _), resets, _ = example()

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=range(5), has_aux=True)
  def total(*arguments):
    memory = empty_memory(B, H, K)
    out, memory = mlstm(*arguments, memory, resets, chunk=3)
    return jnp.sum(out), memory

  for size in (-200.0, 200.0):
    gates = (jnp.full((B, T, H), size), jnp.full((B, T, H), -size))

    (out, memory), gradients = total(query, key, value, *gates)
    for leaf in (out, *memory, *gradients):
      assert np.isfinite(leaf).all()


def test_the_recurrence_is_that_of_the_reference():
  """Of transformers; see golden/mlstm.py."""
  reference = np.load(Path(__file__).parent / "golden" / "mlstm.npz")
  names = ("query", "key", "value", "igate", "fgate")
  arguments = [np.swapaxes(reference[name], 1, 2) for name in names]
  memory = Memory(
    reference["c_initial"],
    reference["n_initial"],
    reference["m_initial"][..., 0],
  )
  read, last = jax.jit(mlstm, static_argnames="chunk")(
    *arguments, memory, chunk=4
  )
  expected = np.swapaxes(reference["h"], 1, 2)
  np.testing.assert_allclose(read, expected, rtol=1e-3, atol=1e-4)
  for leaf, name in zip(last, ("c", "n"), strict=False):
    np.testing.assert_allclose(leaf, reference[name], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(last.scale_BH, reference["m"][..., 0], rtol=1e-5)
