# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of a linear output layer, whose logits are never stored.

Logits of all positions would be the largest array of most language models.
Here they are made for a few rows at a time; where a gradient is asked for, the
same pass turns them into the gradients of the hidden vectors and of the table,
so nothing of the vocabulary's size but the table's gradient outlives its rows.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.bits import as_bits, from_bits, transposed
from lmjax.ops.blocks import split_time
from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import product, wide
from lmjax.types import Array

# Rows of logits made at a time: enough to make adding to the table's gradient
# cheap beside the matmuls, and else no more than stay near the processor.
_MIN_ROWS = {"cpu": 256}
_MIN_ROWS_ELSEWHERE = 4096
_MAX_ELEMENTS = {2: 1 << 22, 4: 1 << 23}  # by bytes an element of the matmuls


class CrossEntropy(NamedTuple):
  """Sums over the positions of a batch, float32 scalars.

  Attributes:
    loss: what is minimised; the only one that has a gradient.
    nats: weighted cross-entropy alone, without smoothing and z-loss.
    correct: sum of the weights where no token scores above the target.
  """

  loss: Array
  nats: Array
  correct: Array


class _Options(NamedTuple):
  label_smoothing: float
  z_loss: float
  chunk: int  # time steps at a time
  vocab_axis: int  # of the logits


def linear_cross_entropy(
  hidden_BTD: Array,
  table_VD: Array,
  targets_BT: Array,
  weights_BT: Array,
  bias_V: Array | None = None,
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  rows: int | None = None,
  vocab_axis: int | None = None,
) -> CrossEntropy:
  """Sum −log softmax(table · hidden + bias)[target] times weight.

  Args:
    hidden_BTD: hidden vectors, in the dtype that the matmuls are to run in;
      they accumulate in float32, and softmax and sums are float32.
    table_VD: one vector a token, a tied embedding or an output layer.
    targets_BT: int tokens.
    weights_BT: weight of each position; it gets no gradient.
    bias_V: added to the logits.
    label_smoothing: weight of the uniform distribution in the target
      (Szegedy et al. 2016, arXiv:1512.00567).
    z_loss: weight of (log Z)², which keeps logits near zero (Chowdhery et al.
      2022, arXiv:2204.02311).
    rows: positions whose logits are made at a time; None to choose.
    vocab_axis: 1 to lay logits out as [rows, V], 0 as [V, rows]; None to
      choose. It changes the speed alone.

  Returns:
    The sums, in nats.
  """
  function = functools.partial(
    _cross_entropy_of_rows, label_smoothing, z_loss, rows, vocab_axis
  )
  weights_BT = jax.lax.stop_gradient(weights_BT)
  by_rows = (hidden_BTD, targets_BT, weights_BT)
  return on_own_rows(function, by_rows, (table_VD, bias_V), add_up=True)


def _cross_entropy_of_rows(
  label_smoothing, z_loss, rows, vocab_axis, by_rows, whole
):
  """Choose how to go through these rows, and do."""
  (hidden_BTD, targets_BT, weights_BT), (table_VD, bias_V) = by_rows, whole
  batch, time, _ = hidden_BTD.shape
  platform, itemsize = jax.default_backend(), hidden_BTD.dtype.itemsize
  if rows is None:
    fit = _MAX_ELEMENTS.get(itemsize, 1 << 23) // len(table_VD)
    rows = max(fit, _MIN_ROWS.get(platform, _MIN_ROWS_ELSEWHERE))
  if vocab_axis is None:  # XLA's CPU backend is slow at bfloat16 Aᵀ·B
    vocab_axis = 0 if platform == "cpu" and itemsize == 2 else 1
  num_chunks = -(-time // max(rows // batch, 1))
  chunk = -(-time // num_chunks)
  options = _Options(label_smoothing, z_loss, chunk, vocab_axis)
  return _cross_entropy(
    options, hidden_BTD, table_VD, bias_V, targets_BT, weights_BT
  )


class _Scores(NamedTuple):
  """Of a chunk; arrays [N, V] are [V, N] where options.vocab_axis is 0."""

  powers: Array  # exp(logit - highest logit of the position), [N, V]
  total_N: Array  # sum of the powers
  log_z_N: Array
  sums: CrossEntropy


def _score(options, table_VD, bias_V, hidden_ND, target_N, weight_N):
  axis = options.vocab_axis
  factors = (hidden_ND, table_VD) if axis else (table_VD, hidden_ND)
  logits = product(*factors, (1, 1))
  if bias_V is not None:
    logits += jnp.expand_dims(bias_V.astype(logits.dtype), 1 - axis)
  highest_N = jnp.max(logits, axis=axis)
  powers = jnp.exp(logits - jnp.expand_dims(highest_N, axis))
  total_N = jnp.sum(powers, axis=axis)
  log_z_N = highest_N + jnp.log(total_N)
  target_logit_N = jnp.squeeze(
    jnp.take_along_axis(logits, jnp.expand_dims(target_N, axis), axis), axis
  )
  nats_N = log_z_N - target_logit_N
  loss_N = nats_N
  if options.label_smoothing:
    even_N = log_z_N - jnp.mean(logits, axis=axis)
    loss_N += options.label_smoothing * (even_N - nats_N)
  if options.z_loss:
    loss_N += options.z_loss * log_z_N * log_z_N
  sums = CrossEntropy(
    loss=jnp.sum(loss_N * weight_N),
    nats=jnp.sum(nats_N * weight_N),
    correct=jnp.sum((target_logit_N >= highest_N) * weight_N),
  )
  return _Scores(powers, total_N, log_z_N, sums)


def _slopes(options, scores, target_N):
  """Differentiate each position's loss with respect to its logits.

  Returns:
    The gradients of the logits times the sum of each position: instead of the
    softmax, a factor of the matmul is divided by it, which is smaller.
  """
  axis, smoothing = options.vocab_axis, options.label_smoothing
  over = functools.partial(jnp.expand_dims, axis=axis)
  gradients = scores.powers
  if options.z_loss:
    gradients *= over(1.0 + 2.0 * options.z_loss * scores.log_z_N)
  if smoothing:
    gradients -= over(smoothing / gradients.shape[axis] * scores.total_N)
  wanted_N = (1.0 - smoothing) * scores.total_N
  by_position = jax.lax.ScatterDimensionNumbers(
    update_window_dims=(),
    inserted_window_dims=(axis,),
    scatter_dims_to_operand_dims=(axis,),
    operand_batching_dims=(1 - axis,),
    scatter_indices_batching_dims=(0,),
  )
  return jax.lax.scatter_sub(
    gradients, target_N[:, None], wanted_N, by_position
  )


def _prepare(options, hidden_BTD, table_VD, targets_BT, weights_BT):
  """Cast to the dtypes of the pass, and split positions into chunks."""
  positions = (
    hidden_BTD,
    targets_BT,
    weights_BT.astype(wide(hidden_BTD.dtype)),
  )
  chunks = tuple(split_time(x, options.chunk) for x in positions)
  return table_VD.astype(hidden_BTD.dtype), chunks


def _flat(chunk) -> tuple[Array, Array, Array]:
  hidden_BTD, targets_BT, weights_BT = chunk
  hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
  return hidden_ND, targets_BT.reshape(-1), weights_BT.reshape(-1)


def _no_sums(dtype: jnp.dtype) -> CrossEntropy:
  return CrossEntropy(*[jnp.zeros((), dtype)] * 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(options, hidden_BTD, table_VD, bias_V, targets, weights):
  table_VD, chunks = _prepare(options, hidden_BTD, table_VD, targets, weights)

  def add(total, chunk):
    sums = _score(options, table_VD, bias_V, *_flat(chunk)).sums
    return jax.tree.map(jnp.add, total, sums), None

  return jax.lax.scan(add, _no_sums(chunks[2].dtype), chunks)[0]


def _fwd(options, hidden_BTD, table_VD, bias_V, targets, weights):
  """Make the sums, and on the way the gradients of the loss."""
  axis, dtype = options.vocab_axis, hidden_BTD.dtype
  primals = (hidden_BTD, table_VD, bias_V)
  table_VD, chunks = _prepare(options, hidden_BTD, table_VD, targets, weights)
  table_DV = None if axis else transposed(table_VD)

  def add(carry, chunk):
    total, dtable_VD, dbias_V = carry
    hidden_ND, target_N, weight_N = _flat(chunk)
    scores = _score(options, table_VD, bias_V, hidden_ND, target_N, weight_N)
    gradients = _slopes(options, scores, target_N)
    scale = jnp.expand_dims(weight_N / scores.total_N, axis)
    if bias_V is not None:
      dbias_V += jnp.sum(gradients * scale, axis=1 - axis)
    if len(table_VD) < hidden_ND.shape[1]:  # scale whichever array is smaller
      gradients, scale = gradients * scale, jnp.ones_like(scale)
    gradients = gradients.astype(dtype)
    scaled_ND = (hidden_ND * scale.reshape(-1, 1)).astype(dtype)
    dtable_VD += product(gradients, scaled_ND, (1 - axis, 0))
    if axis:
      dhidden = product(gradients, table_VD, (1, 0)) * scale
    else:
      dhidden = product(table_DV, gradients, (1, 0)) * scale
    total = jax.tree.map(jnp.add, total, scores.sums)
    return (total, dtable_VD, dbias_V), as_bits(dhidden.astype(dtype))

  sums_dtype = wide(dtype)
  nothing = (
    _no_sums(sums_dtype),
    jnp.zeros(table_VD.shape, sums_dtype),
    None if bias_V is None else jnp.zeros(bias_V.shape, sums_dtype),
  )
  (total, dtable_VD, dbias_V), bits = jax.lax.scan(add, nothing, chunks)
  dhidden = from_bits(bits, dtype)
  batch, time, width = hidden_BTD.shape
  if not axis:
    dhidden = jnp.swapaxes(dhidden, 1, 2)
  dhidden = dhidden.reshape(-1, batch, options.chunk, width)
  dhidden_BTD = jnp.swapaxes(dhidden, 0, 1).reshape(batch, -1, width)[:, :time]
  return total, _as(primals, (dhidden_BTD, dtable_VD, dbias_V))


def _as(primals, gradients):
  return jax.tree.map(lambda p, g: g.astype(p.dtype), primals, gradients)


def _bwd(options, gradients, cotangents):
  del options
  scaled = jax.tree.map(lambda g: g * cotangents.loss, gradients)
  return (*_as(gradients, scaled), None, None)


_cross_entropy.defvjp(_fwd, _bwd)
