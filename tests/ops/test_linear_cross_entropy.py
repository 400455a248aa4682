# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lmjax.losses import cross_entropy
from lmjax.ops.linear_cross_entropy import linear_cross_entropy

B, T, D, V = 2, 7, 3, 11


def plain(hidden, table, targets, weights, bias, smoothing, z_loss):
  """The same sums from all logits at once, differentiated by JAX."""
  logits = hidden @ table.T + (0.0 if bias is None else bias[None, None])
  log_z = jax.nn.logsumexp(logits, axis=-1)
  wanted = optax.smooth_labels(jax.nn.one_hot(targets, V), smoothing)
  nats = -jnp.sum(wanted * jax.nn.log_softmax(logits), axis=-1)
  loss = jnp.sum((nats + z_loss * log_z**2) * weights)
  correct = jnp.sum((logits.argmax(-1) == targets) * weights)
  return loss, correct


def example(dtype, with_bias=True, seed=0):
  rng = np.random.default_rng(seed)
  hidden = jnp.array(rng.normal(size=(B, T, D)), dtype)
  table = jnp.array(rng.normal(size=(V, D)), dtype)
  bias = jnp.array(rng.normal(size=V), dtype) if with_bias else None
  targets = jnp.array(rng.integers(0, V, (B, T)))
  weights = jnp.array(rng.random((B, T)) * (rng.random((B, T)) < 0.8), dtype)
  return hidden, table, targets, weights, bias


@pytest.mark.parametrize("vocab_axis", [0, 1])
@pytest.mark.parametrize("rows", [1, 6, 1000])  # 7 steps: 1, 3 and all a chunk
@pytest.mark.parametrize(
  ("smoothing", "z_loss", "with_bias"), [(0.0, 0.0, False), (0.2, 0.3, True)]
)
def test_sums_and_gradients_equal_autodiff_of_all_logits(
  vocab_axis, rows, smoothing, z_loss, with_bias
):
  with jax.enable_x64(True):
    hidden, table, targets, weights, bias = example(jnp.float64, with_bias)

    def ours(hidden, table, bias):
      sums = linear_cross_entropy(
        hidden,
        table,
        targets,
        weights,
        bias,
        label_smoothing=smoothing,
        z_loss=z_loss,
        rows=rows,
        vocab_axis=vocab_axis,
      )
      return 3.0 * sums.loss, sums

    def theirs(hidden, table, bias):
      loss, correct = plain(
        hidden, table, targets, weights, bias, smoothing, z_loss
      )
      return 3.0 * loss, correct

    arguments = (0, 1, 2) if with_bias else (0, 1)
    grad = functools.partial(jax.grad, argnums=arguments, has_aux=True)
    grads, sums = jax.jit(grad(ours))(hidden, table, bias)
    expected, correct = jax.jit(grad(theirs))(hidden, table, bias)
    for a, b in zip(grads, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    # The undifferentiated pass makes the same sums.
    alone = jax.jit(ours)(hidden, table, bias)[1]
    for a, b in zip(sums, alone, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12)
    logits = hidden @ table.T + (0.0 if bias is None else bias[None, None])
    nats = jnp.sum(cross_entropy(logits, targets) * weights)
    np.testing.assert_allclose(sums.nats, nats, rtol=1e-6)
    np.testing.assert_allclose(sums.correct, correct, rtol=1e-12)
    loss = theirs(hidden, table, bias)[0]
    np.testing.assert_allclose(3.0 * sums.loss, loss, rtol=1e-12)


@pytest.mark.parametrize("vocab_axis", [0, 1])
def test_bfloat16_is_near_and_gradients_keep_their_dtypes(vocab_axis):
  hidden, table, targets, weights, bias = example(jnp.float32)

  def loss(hidden, table, bias):
    return linear_cross_entropy(
      hidden, table, targets, weights, bias, rows=4, vocab_axis=vocab_axis
    ).loss

  grad = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
  exact, expected = grad(hidden, table, bias)
  rounded, grads = grad(hidden.astype(jnp.bfloat16), table, bias)
  assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32, jnp.float32]
  assert 0 < abs(exact - rounded) < 0.02 * exact
  for a, b in zip(grads, expected, strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05)


def test_logits_are_never_stored():
  hidden = jnp.zeros((4, 256, 8))
  table = jnp.zeros((4096, 8))
  targets, weights = jnp.zeros((4, 256), jnp.int32), jnp.ones((4, 256))

  def bytes_needed(rows):
    def loss(hidden, table):
      return linear_cross_entropy(
        hidden, table, targets, weights, rows=rows
      ).loss

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, table).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  all_logits = 4 * 256 * 4096 * 4
  assert bytes_needed(64) < all_logits / 4 < bytes_needed(4 * 256) / 2


def test_weights_get_no_gradient():
  hidden, table, targets, weights, _ = example(jnp.float32)
  grad = jax.grad(
    lambda w: linear_cross_entropy(hidden, table, targets, w).loss
  )(weights)
  assert not grad.any()


def test_devices_sum_their_own_rows_and_meet_once():
  mesh = jax.make_mesh((1, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
  rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
  table_rows = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
  hidden, table, targets, weights, bias = example(jnp.float32)
  hidden, table = (  # a width that two devices can halve
    jnp.concatenate([x, x[..., :1]], axis=-1) for x in (hidden, table)
  )

  def loss(hidden, table, bias):
    sums = linear_cross_entropy(hidden, table, targets, weights, bias, rows=2)
    return 3.0 * sums.loss, sums

  def on_a_mesh(*arguments):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return loss(*arguments)

  grads = [
    jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2), has_aux=True))
    for function in (loss, on_a_mesh)
  ]
  whole = (hidden, table, bias)
  spread = (*map(jax.device_put, (hidden, table), (rows, table_rows)), bias)
  results = [grads[0](*whole), grads[1](*spread)]
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
  program = grads[1].lower(*spread).compile().as_text()
  loops, entry = program.split("\nENTRY")
  assert "while(" in entry and "all-reduce(" in entry
  assert "all-reduce" not in loops and "all-gather" not in loops
