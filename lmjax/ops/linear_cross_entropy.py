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
    label_smoothing: share of the target that is spread evenly over all tokens
      (Szegedy et al. 2016, arXiv:1512.00567).
    z_loss: weight of (log Z)², which keeps logits near zero (Chowdhery et al.
      2022, arXiv:2204.02311).
    rows: positions whose logits are made at a time; None to choose.
    vocab_axis: 1 to lay logits out as [rows, V], 0 as [V, rows]; None to
      choose. It changes the speed alone.

  Returns:
    The sums, in nats.
  """
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
  weights_BT = jax.lax.stop_gradient(weights_BT)
  return _cross_entropy(
    options, hidden_BTD, table_VD, bias_V, targets_BT, weights_BT
  )


def _chunks(x_BT: Array, chunk: int) -> Array:
  """Cut [B, T, ...] into [number, B, chunk, ...], padded with zeros.

  Rows of the batch stay together, as they may be spread over devices.
  """
  batch, time = x_BT.shape[:2]
  number = -(-time // chunk)
  padding = [(0, 0), (0, number * chunk - time)] + [(0, 0)] * (x_BT.ndim - 2)
  x_BT = jnp.pad(x_BT, padding)
  split = x_BT.reshape(batch, number, chunk, *x_BT.shape[2:])
  return jnp.swapaxes(split, 0, 1)


def _wide(dtype: jnp.dtype) -> jnp.dtype:
  """Choose the dtype of sums: float32 at least."""
  return jnp.promote_types(dtype, jnp.float32)


def _matmul(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
  dimensions = ((contracted[:1], contracted[1:]), ((), ()))
  return jax.lax.dot_general(
    a, b, dimensions, preferred_element_type=_wide(a.dtype)
  )


class _Scores(NamedTuple):
  logits: Array  # [N, V], or [V, N] where options.vocab_axis is 0
  log_z_N: Array
  sums: CrossEntropy


def _score(options, table_VD, bias_V, hidden_ND, target_N, weight_N):
  axis = options.vocab_axis
  factors = (hidden_ND, table_VD) if axis else (table_VD, hidden_ND)
  logits = _matmul(*factors, (1, 1))
  if bias_V is not None:
    logits += jnp.expand_dims(bias_V.astype(logits.dtype), 1 - axis)
  highest_N = jnp.max(logits, axis=axis)
  powers = jnp.exp(logits - jnp.expand_dims(highest_N, axis))
  log_z_N = highest_N + jnp.log(jnp.sum(powers, axis=axis))
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
  return _Scores(logits, log_z_N, sums)


def _slopes(options, scores, target_N, weight_N):
  """Differentiate the loss with respect to the logits, shaped like them."""
  axis, smoothing = options.vocab_axis, options.label_smoothing
  vocab_size = scores.logits.shape[axis]
  over = functools.partial(jnp.expand_dims, axis=axis)
  token = jnp.expand_dims(jnp.arange(vocab_size), 1 - axis)
  wanted = jnp.where(token == over(target_N), 1.0 - smoothing, 0.0)
  scale_N = weight_N * (1.0 + 2.0 * options.z_loss * scores.log_z_N)
  probability = jnp.exp(scores.logits - over(scores.log_z_N))
  return probability * over(scale_N) - (wanted + smoothing / vocab_size) * over(
    weight_N
  )


def _prepare(options, hidden_BTD, table_VD, targets_BT, weights_BT):
  """Cast to the dtypes of the pass, and cut the positions into chunks."""
  positions = (
    hidden_BTD.astype(hidden_BTD.dtype),
    targets_BT,
    weights_BT.astype(_wide(hidden_BTD.dtype)),
  )
  chunks = tuple(_chunks(x, options.chunk) for x in positions)
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
    dlogits = _slopes(options, scores, target_N, weight_N)
    if bias_V is not None:
      dbias_V += jnp.sum(dlogits, axis=1 - axis)
    dlogits = dlogits.astype(dtype)
    dtable_VD += _matmul(dlogits, hidden_ND, (1 - axis, 0))
    if axis:
      dhidden = _matmul(dlogits, table_VD, (1, 0))
    else:
      dhidden = _matmul(table_DV, dlogits, (1, 0))
    total = jax.tree.map(jnp.add, total, scores.sums)
    return (total, dtable_VD, dbias_V), as_bits(dhidden.astype(dtype))

  wide = _wide(dtype)
  nothing = (
    _no_sums(wide),
    jnp.zeros(table_VD.shape, wide),
    None if bias_V is None else jnp.zeros(bias_V.shape, wide),
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
