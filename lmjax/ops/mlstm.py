# SPDX-License-Identifier: Apache-2.0
"""The matrix memory of the mLSTM, chunk by chunk.

Beck et al. 2024 (arXiv:2405.04517). A memory C, a normalizer n and gates that
are exponentials, where ĩ and f̃ depend on inputs alone:

    C[t] = σ(f̃) C[t-1] + exp(ĩ) k vᵀ     n[t] = σ(f̃) n[t-1] + exp(ĩ) k
    h[t] = qᵀ C[t] / max(|qᵀ n[t]|, 1)

C and n are stored multiplied by exp(-m), with the logarithm m of their largest
term, so that no exponential overflows. The output does not depend
on m, and no gradient flows through it.

Within a chunk every token attends to those before it, with gates for a softmax;
what lies before the chunk is in C, so the work grows linearly with the length.

Dimension letters:

    Q  positions of one chunk
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.blocks import split_time
from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import wide
from lmjax.types import Array

NOTHING = -1e30  # the logarithm of a term that is not there


class Memory(NamedTuple):
  """What is remembered, in multiples of exp(scale).

  Attributes:
    values_BHKJ: C, the sum of all outer products of keys and values.
    keys_BHK: n, the sum of all keys.
    scale_BH: m, the logarithm of the largest weight; NOTHING if it is empty.
  """

  values_BHKJ: Array
  keys_BHK: Array
  scale_BH: Array


def empty_memory(batch_size: int, heads: int, width: int) -> Memory:
  """Make a memory of nothing, for keys and values of that width."""
  return Memory(
    jnp.zeros((batch_size, heads, width, width), jnp.float32),
    jnp.zeros((batch_size, heads, width), jnp.float32),
    jnp.full((batch_size, heads), NOTHING, jnp.float32),
  )


def mlstm(
  query_BTHK: Array,
  key_BTHK: Array,
  value_BTHK: Array,
  input_BTH: Array,
  forget_BTH: Array,
  memory: Memory,
  resets_BT: Array | None = None,
  *,
  chunk: int = 64,
) -> tuple[Array, Memory]:
  """Write keys and values into a memory, and read it by queries.

  Args:
    query_BTHK: what is looked for; products with keys are divided by √K.
    key_BTHK: where values are written.
    value_BTHK: what is written.
    input_BTH: ĩ, the logarithms of the input gates.
    forget_BTH: f̃, the forget gates before their sigmoid.
    memory: what there is before the first token.
    resets_BT: true where the memory is emptied before the token.
    chunk: how many tokens a chunk has at most.

  Returns:
    What was read, [B, T, H, K] in the dtype of the query, and the memory.
  """
  rows = (query_BTHK, key_BTHK, value_BTHK, input_BTH, forget_BTH)
  rows = (rows, memory, resets_BT)
  run = functools.partial(_run, chunk)
  return on_own_rows(lambda rows, _: run(*rows), rows, ())


def _run(chunk, rows, memory, resets_BT):
  query_BTHK, key_BTHK, value_BTHK, input_BTH, forget_BTH = rows
  dtype, (batch, time, heads, width) = query_BTHK.dtype, query_BTHK.shape
  if resets_BT is None:
    resets_BT = jnp.zeros((batch, time), bool)
  size = -(-time // -(-time // chunk))  # the fewest chunks, of little padding
  gates = (
    input_BTH.astype(wide(dtype)),
    jax.nn.log_sigmoid(forget_BTH.astype(wide(dtype))),
  )
  # Padding writes nothing and forgets nothing.
  (input_NBQH, forget_NBQH), qkv = (
    [
      split_time(x, size, fill)
      for x, fill in zip(gates, (NOTHING, 0), strict=True)
    ],
    [
      split_time(x, size)
      for x in (query_BTHK * width**-0.5, key_BTHK, value_BTHK)
    ],
  )
  heads_first = lambda x: jnp.swapaxes(x, 2, 3)  # noqa: E731
  xs = (
    *map(heads_first, qkv),
    heads_first(input_NBQH),
    heads_first(forget_NBQH),
    split_time(resets_BT.astype(jnp.int32), size),
  )
  if len(input_NBQH) == 1:
    memory, out = _chunk(memory, tuple(x[0] for x in xs))
    out_BTHK = jnp.swapaxes(out, 1, 2)
  else:
    memory, out_NBHQK = jax.lax.scan(_chunk, memory, xs)
    out_BTHK = jnp.transpose(out_NBHQK, (1, 0, 3, 2, 4))
    out_BTHK = out_BTHK.reshape(batch, -1, heads, width)[:, :time]
  return out_BTHK.astype(dtype), memory


def _chunk(memory: Memory, xs: tuple[Array, ...]) -> tuple[Memory, Array]:
  """Write and read a chunk of L tokens."""
  query_BHQK, key_BHQK, value_BHQK, input_BHQ, forget_BHQ, resets_BQ = xs
  dtype = query_BHQK.dtype
  einsum = functools.partial(jnp.einsum, preferred_element_type=wide(dtype))
  steps = jnp.arange(resets_BQ.shape[1])
  document_BQ = jnp.cumsum(resets_BQ, axis=1)
  same_BQS = document_BQ[:, :, None] == document_BQ[:, None]
  same_BQS &= (steps[:, None] >= steps[None])[None]
  # The logarithm of what is left at t of what was written at s, or before.
  kept_BHQ = jnp.cumsum(forget_BHQ, axis=2)
  log_BHQS = kept_BHQ[..., None] + (input_BHQ - kept_BHQ)[:, :, None]
  log_BHQS = jnp.where(same_BQS[:, None], log_BHQS, NOTHING)
  log_BHQ = kept_BHQ + memory.scale_BH[..., None]
  log_BHQ = jnp.where(document_BQ[:, None] == 0, log_BHQ, NOTHING)
  scale_BHQ = jax.lax.stop_gradient(
    jnp.maximum(log_BHQ, jnp.max(log_BHQS, axis=3))
  )
  weight_BHQS = jnp.exp(log_BHQS - scale_BHQ[..., None])
  weight_BHQ1 = jnp.exp(log_BHQ - scale_BHQ)[..., None]

  score_BHQS = einsum("bhlk,bhsk->bhls", query_BHQK, key_BHQK) * weight_BHQS
  values_BHKJ, keys_BHK, _ = memory
  read_BHQJ = einsum(
    "bhls,bhsj->bhlj", score_BHQS.astype(dtype), value_BHQK
  ) + weight_BHQ1 * einsum(
    "bhlk,bhkj->bhlj", query_BHQK, values_BHKJ.astype(dtype)
  )
  found_BHQ = score_BHQS.sum(axis=3) + weight_BHQ1[..., 0] * einsum(
    "bhlk,bhk->bhl", query_BHQK, keys_BHK.astype(dtype)
  )
  # 1 in multiples of exp(scale), within what can be squared in float32; beyond
  # that it is far from what was found.
  one_BHQ = jnp.exp(-jnp.clip(scale_BHQ, -40.0, 40.0))
  out_BHQJ = read_BHQJ / jnp.maximum(jnp.abs(found_BHQ), one_BHQ)[..., None]

  written_BHQK = key_BHQK * weight_BHQS[:, :, -1, :, None]
  left_BH = weight_BHQ1[:, :, -1, 0]
  memory = Memory(
    left_BH[..., None, None] * values_BHKJ
    + einsum("bhlk,bhlj->bhkj", written_BHQK.astype(dtype), value_BHQK),
    left_BH[..., None] * keys_BHK + written_BHQK.sum(axis=2),
    scale_BHQ[:, :, -1],
  )
  return memory, out_BHQJ.astype(dtype)
