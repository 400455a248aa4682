# SPDX-License-Identifier: Apache-2.0
"""Causal attention block by block, with a hand-written gradient.

Scores of one block of queries with one block of keys exist at a time, blocks
that the mask hides are left out, and the way back makes the scores again from
the stored normalisers, so memory grows linearly with the length (Dao et al.
2022, arXiv:2205.14135; Rabe & Staats 2021, arXiv:2112.05682).

Scores stand with the keys first. No product then has to transpose them, which
XLA's CPU backend does slowly in bfloat16, and the softmax adds whole rows.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.blocks import cut
from lmjax.ops.matmul import wide
from lmjax.types import Array, PyTree

# Above this number of pairs of blocks, one loop goes over all of them.
_MAX_UNROLLED = 24
_HIDDEN = -1e30


class _Options(NamedTuple):
  block: int  # of queries
  window: int  # positions that a query sees, itself among them; 0: all
  aligned: bool  # query i and key i stand at the same place


class _Positions(NamedTuple):
  """Cut into blocks, or None for plain causal attention over places."""

  query_NBQ: Array
  lowest_NBQ: Array
  key_NBQ: Array


def blocked_attention(
  query_BTHK: Array,
  key_BSGK: Array,
  value_BSGK: Array,
  positions: tuple[Array, Array, Array] | None = None,
  *,
  aligned: bool = True,
  window: int = 0,
  block: int = 128,
) -> Array:
  """Attend to what lies at or before each query.

  Args:
    query_BTHK: queries, not scaled yet.
    key_BSGK: keys; G divides H.
    value_BSGK: values.
    positions: (position of each query [B, T], lowest position that it sees
      [B, T], position of each key [B, S]); None where query i stands at i and
      sees the keys from i - window + 1 to i.
    aligned: whether query i and key i stand at the same place, so that blocks
      above the diagonal can be left out.
    window: how many positions are seen at most, if that is to leave out blocks
      below the diagonal; 0 for all.
    block: how many queries or keys a block has at most.

  Returns:
    [B, T, H, K] in the dtype of the query.
  """
  batch, time, heads, width = query_BTHK.shape
  groups = key_BSGK.shape[2]
  keys_block = _equal(key_BSGK.shape[1], block)
  block = _equal(time, block)
  if aligned:
    keys_block = block
  scaled = query_BTHK * jnp.asarray(width**-0.5, query_BTHK.dtype)
  query = cut(scaled, block)
  query = query.reshape(*query.shape[:3], groups, -1, width)
  query = query.transpose(0, 1, 3, 4, 2, 5)  # [N, B, G, R, Q, K]
  query = query.reshape(*query.shape[:3], -1, width)
  key, value = (
    cut(x, keys_block).transpose(0, 1, 3, 2, 4) for x in (key_BSGK, value_BSGK)
  )
  if positions is not None:
    query_BT, lowest_BT, key_BS = positions
    positions = _Positions(
      cut(query_BT, block, -1),
      cut(lowest_BT, block, 0),
      cut(key_BS, keys_block, jnp.iinfo(jnp.int32).max),
    )
  options = _Options(block, window, aligned)
  out = _attention(options, query, key, value, positions)  # [N, B, G, RQ, K]
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


def _scores(options, query, key, positions, i, j) -> Array:
  """Return masked scores [B, G, keys, queries]."""
  scores = _dot(key[j], query[i], (1, 1))
  if positions is not None:
    key_BQ1 = positions.key_NBQ[j][:, :, None]
    seen = key_BQ1 <= positions.query_NBQ[i][:, None]
    seen &= key_BQ1 >= positions.lowest_NBQ[i][:, None]
    seen = seen[:, None]
  else:
    static = isinstance(i, int)
    span = (i - j + 1) * options.block
    if static and i > j and (not options.window or span <= options.window):
      return scores
    places = jnp.arange(options.block)
    distance = (i - j) * options.block + places - places[:, None]
    seen = distance >= 0
    if options.window:
      seen &= distance < options.window
  heads = scores.shape[-1] // options.block
  return jnp.where(jnp.tile(seen, heads), scores, _HIDDEN)


def _forward(options, query, key, value, positions):
  """Return the output, and the log of each query's softmax denominator."""
  value_KQ = jnp.swapaxes(value, -1, -2)
  dtype = wide(query.dtype)

  def absorb(carry, i, j):
    out, highest, total = carry
    scores = _scores(options, query, key, positions, i, j)
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
    jnp.full(shape, _HIDDEN, dtype),
    jnp.zeros(shape, dtype),
  )
  pairs = _pairs(options, number, len(key))
  out, highest, total = _over_pairs(absorb, initial, pairs)
  # Until a query has seen something it adds up nonsense, which shrinks to
  # nothing then; one that never sees anything gives zeros.
  total = jnp.where(highest > 0.5 * _HIDDEN, total, jnp.inf)
  out = jnp.swapaxes(out / total[:, :, :, None], -1, -2).astype(query.dtype)
  return out, highest + jnp.log(total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(options, query, key, value, positions):
  return _forward(options, query, key, value, positions)[0]


def _fwd(options, query, key, value, positions):
  out, log_z = _forward(options, query, key, value, positions)
  return out, (query, key, value, positions, out, log_z)


def _bwd(options, saved, dout):
  query, key, value, positions, out, log_z = saved
  dtype = log_z.dtype
  mean = jnp.sum(out.astype(dtype) * dout.astype(dtype), axis=-1)
  key_KQ = jnp.swapaxes(key, -1, -2)

  def absorb(carry, i, j):
    dquery_KQ, dkey, dvalue = carry
    scores = _scores(options, query, key, positions, i, j)
    power = jnp.exp(scores - log_z[i][:, :, None])
    slope = _dot(value[j], dout[i], (1, 1)) - mean[i][:, :, None]
    dscores = (power * slope).astype(key.dtype)
    power = power.astype(value.dtype)
    return (
      dquery_KQ.at[i].add(_dot(key_KQ[j], dscores, (1, 0))),
      dkey.at[j].add(_dot(dscores, query[i], (1, 0))),
      dvalue.at[j].add(_dot(power, dout[i], (1, 0))),
    )

  number, batch, groups, rows, width = query.shape
  initial = (
    jnp.zeros((number, batch, groups, width, rows), dtype),
    jnp.zeros(key.shape, dtype),
    jnp.zeros(value.shape, dtype),
  )
  pairs = _pairs(options, number, len(key))
  dquery_KQ, dkey, dvalue = _over_pairs(absorb, initial, pairs)
  dquery = jnp.swapaxes(dquery_KQ, -1, -2)
  gradients = (dquery, dkey, dvalue)
  primals = (query, key, value)
  cast = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, primals)
  return (*cast, None)


_attention.defvjp(_fwd, _bwd)
