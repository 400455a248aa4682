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
  (input_NBLH, forget_NBLH), qkv = (
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
    heads_first(input_NBLH),
    heads_first(forget_NBLH),
    split_time(resets_BT.astype(jnp.int32), size),
  )
  if len(input_NBLH) == 1:
    memory, out = _chunk(memory, tuple(x[0] for x in xs))
    out_BTHK = jnp.swapaxes(out, 1, 2)
  else:
    memory, out_NBHLK = jax.lax.scan(_chunk, memory, xs)
    out_BTHK = jnp.transpose(out_NBHLK, (1, 0, 3, 2, 4))
    out_BTHK = out_BTHK.reshape(batch, -1, heads, width)[:, :time]
  return out_BTHK.astype(dtype), memory


def _chunk(memory: Memory, xs: tuple[Array, ...]) -> tuple[Memory, Array]:
  """Write and read a chunk of L tokens."""
  query_BHLK, key_BHLK, value_BHLK, input_BHL, forget_BHL, resets_BL = xs
  dtype = query_BHLK.dtype
  einsum = functools.partial(jnp.einsum, preferred_element_type=wide(dtype))
  steps = jnp.arange(resets_BL.shape[1])
  document_BL = jnp.cumsum(resets_BL, axis=1)
  same_BLS = document_BL[:, :, None] == document_BL[:, None]
  same_BLS &= (steps[:, None] >= steps[None])[None]
  # The logarithm of what is left at t of what was written at s, or before.
  kept_BHL = jnp.cumsum(forget_BHL, axis=2)
  log_BHLS = kept_BHL[..., None] + (input_BHL - kept_BHL)[:, :, None]
  log_BHLS = jnp.where(same_BLS[:, None], log_BHLS, NOTHING)
  log_BHL = kept_BHL + memory.scale_BH[..., None]
  log_BHL = jnp.where(document_BL[:, None] == 0, log_BHL, NOTHING)
  scale_BHL = jax.lax.stop_gradient(
    jnp.maximum(log_BHL, jnp.max(log_BHLS, axis=3))
  )
  weight_BHLS = jnp.exp(log_BHLS - scale_BHL[..., None])
  weight_BHL1 = jnp.exp(log_BHL - scale_BHL)[..., None]

  score_BHLS = einsum("bhlk,bhsk->bhls", query_BHLK, key_BHLK) * weight_BHLS
  values_BHKJ, keys_BHK, _ = memory
  read_BHLJ = einsum(
    "bhls,bhsj->bhlj", score_BHLS.astype(dtype), value_BHLK
  ) + weight_BHL1 * einsum(
    "bhlk,bhkj->bhlj", query_BHLK, values_BHKJ.astype(dtype)
  )
  found_BHL = score_BHLS.sum(axis=3) + weight_BHL1[..., 0] * einsum(
    "bhlk,bhk->bhl", query_BHLK, keys_BHK.astype(dtype)
  )
  # 1 in multiples of exp(scale), within what can be squared in float32; beyond
  # that it is far from what was found.
  one_BHL = jnp.exp(-jnp.clip(scale_BHL, -40.0, 40.0))
  out_BHLJ = read_BHLJ / jnp.maximum(jnp.abs(found_BHL), one_BHL)[..., None]

  written_BHLK = key_BHLK * weight_BHLS[:, :, -1, :, None]
  left_BH = weight_BHL1[:, :, -1, 0]
  memory = Memory(
    left_BH[..., None, None] * values_BHKJ
    + einsum("bhlk,bhlj->bhkj", written_BHLK.astype(dtype), value_BHLK),
    left_BH[..., None] * keys_BHK + written_BHLK.sum(axis=2),
    scale_BHL[:, :, -1],
  )
  return memory, out_BHLJ.astype(dtype)
