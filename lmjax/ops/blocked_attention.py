# SPDX-License-Identifier: Apache-2.0
"""Attention block by block, with a hand-written gradient.

Scores of one block of queries with one block of keys exist at a time, blocks
that the mask hides are left out, and the way back makes the scores again from
the stored normalizers, so memory grows linearly with the length (Dao et al.
2022, arXiv:2205.14135; Rabe & Staats 2021, arXiv:2112.05682).

Scores have the keys first. Then no product has to transpose them, which
XLA's CPU backend does slowly in bfloat16, and the softmax adds whole rows.

Dimension letters:

    P  distances between one block of queries and one of keys
    Q  positions of one block
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.blocks import split_time
from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import wide
from lmjax.ops.toeplitz import spread
from lmjax.types import Array, PyTree

# Above this number of pairs of blocks, one loop goes over all of them.
_MAX_UNROLLED = 24
# Score of masked keys; finite, so that a query without visible keys is not NaN.
HIDDEN = -1e30


class _Options(NamedTuple):
  block: int  # of queries
  window: int  # positions visible to a query, including its own; 0: all
  aligned: bool  # query i attends to no key after index i


class _Positions(NamedTuple):
  """Positions by block; None if indices alone define the mask."""

  highest_NBQ: Array
  lowest_NBQ: Array
  key_NBQ: Array


def blocked_attention(
  query_BTHK: Array,
  key_BSGK: Array,
  value_BSGK: Array,
  positions: tuple[Array, Array, Array] | None = None,
  *,
  bias_HN: Array | None = None,
  aligned: bool = True,
  window: int = 0,
  block: int = 128,
) -> Array:
  """Attend from each query to the keys between two positions.

  Args:
    query_BTHK: queries, not scaled yet.
    key_BSGK: keys; G divides H.
    value_BSGK: values.
    positions: (highest position that each query sees [B, T], lowest one
      [B, T], position of each key [B, S]). None where places say it: if
      aligned, query i sees the keys from i - window + 1 to i; else all.
    bias_HN: bias of the scores of each distance, from 1 - T to S - 1,
      N = S + T - 1. The last query and the last key have the same position.
    aligned: whether query i attends to no key after index i, so that blocks
      above the diagonal can be omitted.
    window: how many positions are seen at most, if that is to leave out blocks
      below the diagonal; 0 for all.
    block: how many queries or keys a block has at most.

  Returns:
    [B, T, H, K] in the dtype of the query.
  """
  blocks = functools.partial(
    _cut_and_attend, aligned=aligned, window=window, most=block
  )
  rows = (query_BTHK, key_BSGK, value_BSGK, positions)
  if bias_HN is None:
    return blocks(rows, None)
  return on_own_rows(blocks, rows, bias_HN)


def _cut_and_attend(
  rows: PyTree, bias_HN: Array | None, *, aligned: bool, window: int, most: int
) -> Array:
  query_BTHK, key_BSGK, value_BSGK, positions = rows
  batch, time, heads, width = query_BTHK.shape
  num_keys, groups = key_BSGK.shape[1:3]
  keys_block = _equal(num_keys, most)
  block = _equal(time, most)
  if aligned:
    keys_block = block
  elif positions is None and num_keys % keys_block:  # hide the padding
    places_1S = jnp.arange(num_keys)[None]
    zeros_1T = jnp.zeros((1, time), jnp.int32)
    positions = (zeros_1T + num_keys, zeros_1T, places_1S)
  scaled = query_BTHK * jnp.asarray(width**-0.5, query_BTHK.dtype)
  query = split_time(scaled, block)
  query = query.reshape(*query.shape[:3], groups, -1, width)
  query = query.transpose(0, 1, 3, 4, 2, 5)  # [N, B, G, R, Q, K]
  query = query.reshape(*query.shape[:3], -1, width)
  key, value = (
    split_time(x, keys_block).transpose(0, 1, 3, 2, 4)
    for x in (key_BSGK, value_BSGK)
  )
  if bias_HN is not None:
    padding = (len(key) * keys_block - num_keys, len(query) * block - time)
    bias_HN = jnp.pad(bias_HN, ((0, 0), padding))
  if positions is not None:
    highest_BT, lowest_BT, key_BS = positions
    positions = _Positions(
      split_time(highest_BT, block, -1),
      split_time(lowest_BT, block, 0),
      split_time(key_BS, keys_block, jnp.iinfo(jnp.int32).max),
    )
  options = _Options(block, window, aligned)
  # [N, B, G, RQ, K]
  out = _attention(options, query, key, value, bias_HN, positions)
  out = out.reshape(*out.shape[:3], heads // groups, block, width)
  out = out.transpose(1, 0, 4, 2, 3, 5).reshape(batch, -1, heads, width)
  return out[:, :time]


def _equal(length: int, most: int) -> int:
  """Choose the size of the fewest blocks, of little padding."""
  return -(-length // -(-length // most))


def _pairs(options: _Options, num_queries: int, num_keys: int) -> list:
  """List the blocks (of queries, of keys) that the mask does not hide.

  >>> _pairs(_Options(block=2, window=2, aligned=True), 3, 3)
  [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]
  """
  if not options.aligned:
    return [(i, j) for i in range(num_queries) for j in range(num_keys)]
  reach = num_keys
  if options.window:
    reach = (options.window - 2) // options.block + 1
  return [
    (i, j)
    for i in range(num_queries)
    for j in range(max(0, i - reach), min(i + 1, num_keys))
  ]


def _over_pairs(
  absorb: Callable[[PyTree, Array, Array], PyTree], initial: PyTree, pairs: list
) -> PyTree:
  """Absorb one pair of blocks after the other."""
  if len(pairs) <= _MAX_UNROLLED:
    for i, j in pairs:
      initial = absorb(initial, i, j)
    return initial
  indices = jnp.array(pairs)
  loop = lambda carry, ij: (absorb(carry, ij[0], ij[1]), None)  # noqa: E731
  return jax.lax.scan(loop, initial, indices)[0]


def _dot(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
  """Multiply matrices [B, G, ., .], accumulating in float32 at least."""
  batch = (0, 1)
  contract = ((contracted[0] + 2,), (contracted[1] + 2,))
  return jax.lax.dot_general(
    a, b, (contract, (batch, batch)), preferred_element_type=wide(a.dtype)
  )


def _bias(options, bias_HN, key, i, j) -> tuple[Array, int]:
  """Return the biases of the distances within a pair of blocks, [H, .].

  The first is that of the first query and the last key; beside, it is said
  where they are among all.
  """
  keys_block = key.shape[3]
  start = i * options.block + (len(key) - 1 - j) * keys_block
  size = options.block + keys_block - 1
  return jax.lax.dynamic_slice_in_dim(bias_HN, start, size, 1), start


def _spread_bias(options, bias_HP, groups: int, keys_block: int) -> Array:
  """Turn biases of distances into those of scores, [G, keys, queries]."""
  bias_HKQ = spread(bias_HP, keys_block)
  bias = bias_HKQ.reshape(groups, -1, keys_block, options.block)
  return jnp.swapaxes(bias, 1, 2).reshape(groups, keys_block, -1)


def _scores(options, query, key, bias_HN, positions, i, j) -> Array:
  """Return masked scores [B, G, keys, queries]."""
  scores = _dot(key[j], query[i], (1, 1))
  if bias_HN is not None:
    bias_HP, _ = _bias(options, bias_HN, key, i, j)
    scores += _spread_bias(options, bias_HP, *key.shape[2:4])[None]
  if positions is not None:
    key_BQ1 = positions.key_NBQ[j][:, :, None]
    seen = key_BQ1 <= positions.highest_NBQ[i][:, None]
    seen &= key_BQ1 >= positions.lowest_NBQ[i][:, None]
    seen = seen[:, None]
  elif not options.aligned:
    return scores
  else:
    static = isinstance(i, int)
    span = (i - j + 1) * options.block
    if static and i > j and (not options.window or span <= options.window):
      return scores
    places = jnp.arange(options.block)
    distance = (i - j) * options.block + places[None] - places[:, None]
    seen = distance >= 0
    if options.window:
      seen &= distance < options.window
  heads = scores.shape[-1] // options.block
  return jnp.where(jnp.tile(seen, heads), scores, HIDDEN)


def _forward(options, query, key, value, bias_HN, positions):
  """Return the output, and the log of each query's softmax denominator."""
  value_KQ = jnp.swapaxes(value, -1, -2)
  dtype = wide(query.dtype)

  def absorb(carry, i, j):
    out, highest, total = carry
    scores = _scores(options, query, key, bias_HN, positions, i, j)
    higher = jnp.maximum(highest[i], jnp.max(scores, axis=2))
    power = jnp.exp(scores - higher[:, :, None])
    shrink = jnp.exp(highest[i] - higher)
    new = _dot(value_KQ[j], power.astype(value.dtype), (1, 0))
    return (
      out.at[i].set(out[i] * shrink[:, :, None] + new),
      highest.at[i].set(higher),
      total.at[i].set(total[i] * shrink + jnp.sum(power, axis=2)),
    )

  number, batch, groups, rows, width = query.shape
  shape = (number, batch, groups, rows)
  initial = (
    jnp.zeros((number, batch, groups, width, rows), dtype),
    jnp.full(shape, HIDDEN, dtype),
    jnp.zeros(shape, dtype),
  )
  pairs = _pairs(options, number, len(key))
  out, highest, total = _over_pairs(absorb, initial, pairs)
  # Until a query has seen something it adds up nonsense, which shrinks to
  # nothing then; one that never sees anything gives zeros.
  total = jnp.where(highest > 0.5 * HIDDEN, total, jnp.inf)
  out = jnp.swapaxes(out / total[:, :, :, None], -1, -2).astype(query.dtype)
  return out, highest + jnp.log(total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(options, query, key, value, bias_HN, positions):
  return _forward(options, query, key, value, bias_HN, positions)[0]


def _fwd(options, query, key, value, bias_HN, positions):
  out, log_z = _forward(options, query, key, value, bias_HN, positions)
  return out, (query, key, value, bias_HN, positions, out, log_z)


def _bwd(options, saved, dout):
  query, key, value, bias_HN, positions, out, log_z = saved
  dtype = log_z.dtype
  mean = jnp.sum(out.astype(dtype) * dout.astype(dtype), axis=-1)
  key_KQ = jnp.swapaxes(key, -1, -2)

  def bias_gradient(dbias_HN, dscores, i, j):
    bias_HP, start = _bias(options, dbias_HN, key, i, j)
    _, gather = jax.vjp(
      lambda x: _spread_bias(options, x, *key.shape[2:4]), bias_HP
    )
    (new_HP,) = gather(jnp.sum(dscores, axis=0))
    return jax.lax.dynamic_update_slice_in_dim(
      dbias_HN, bias_HP + new_HP, start, 1
    )

  def absorb(carry, i, j):
    dquery_KQ, dkey, dvalue, dbias_HN = carry
    scores = _scores(options, query, key, bias_HN, positions, i, j)
    power = jnp.exp(scores - log_z[i][:, :, None])
    cotangent = _dot(value[j], dout[i], (1, 1)) - mean[i][:, :, None]
    dscores = power * cotangent
    if bias_HN is not None:
      dbias_HN = bias_gradient(dbias_HN, dscores, i, j)
    dscores = dscores.astype(key.dtype)
    power = power.astype(value.dtype)
    return (
      dquery_KQ.at[i].add(_dot(key_KQ[j], dscores, (1, 0))),
      dkey.at[j].add(_dot(dscores, query[i], (1, 0))),
      dvalue.at[j].add(_dot(power, dout[i], (1, 0))),
      dbias_HN,
    )

  number, batch, groups, rows, width = query.shape
  initial = (
    jnp.zeros((number, batch, groups, width, rows), dtype),
    jnp.zeros(key.shape, dtype),
    jnp.zeros(value.shape, dtype),
    None if bias_HN is None else jnp.zeros(bias_HN.shape, dtype),
  )
  pairs = _pairs(options, number, len(key))
  dquery_KQ, dkey, dvalue, dbias_HN = _over_pairs(absorb, initial, pairs)
  dquery = jnp.swapaxes(dquery_KQ, -1, -2)
  gradients = (dquery, dkey, dvalue, dbias_HN)
  primals = (query, key, value, bias_HN)
  cast = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, primals)
  return (*cast, None)


_attention.defvjp(_fwd, _bwd)
