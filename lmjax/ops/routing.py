# SPDX-License-Identifier: Apache-2.0
"""Assignment of tokens to slots of experts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array


class Plan(NamedTuple):
  """Blocks of slots, each block for one expert, and their tokens.

  Attributes:
    slot_A: slot of each assignment of a token to an expert; the number of all
      slots, which is one too high, where it is dropped.
    expert_N: expert of each block, in ascending order.
    block: how many slots a block has.
  """

  slot_A: Array
  expert_N: Array
  block: int


def plan_for_all(expert_A: Array, num_experts: int, most: int = 128) -> Plan:
  """Find a slot for every assignment, whatever experts have to do.

  Every expert has as many blocks as it needs, so at most one of its blocks is
  not full.

  Args:
    expert_A: the expert of each assignment.
    num_experts: how many there are.
    most: largest size of a block.
  """
  number = len(expert_A)
  block = 1
  while block < most and 2 * block * num_experts < number:
    block *= 2
  num_blocks = (number + num_experts * (block - 1)) // block
  order_A = jnp.argsort(expert_A, stable=True)
  sorted_A = expert_A[order_A]
  experts = jnp.arange(num_experts)
  count_X = jnp.sum(expert_A[:, None] == experts[None], axis=0)
  blocks_X = -(-count_X // block)
  last_X, end_X = jnp.cumsum(count_X), jnp.cumsum(blocks_X)
  rank_A = jnp.arange(number) - (last_X - count_X)[sorted_A]
  sorted_slot_A = (end_X - blocks_X)[sorted_A] * block + rank_A
  slot_A = jnp.zeros(number, jnp.int32).at[order_A].set(sorted_slot_A)
  expert_N = jnp.sum(jnp.arange(num_blocks)[:, None] >= end_X[None], axis=1)
  return Plan(slot_A, jnp.minimum(expert_N, num_experts - 1), block)


def plan_within(expert_BA: Array, num_experts: int, capacity: int) -> Plan:
  """Find slots for the first assignments of each row to each expert.

  Who is dropped depends on earlier assignments of the row alone.

  >>> plan_within([[1, 0, 1, 1]], num_experts=2, capacity=2).slot_A
  [2, 0, 3, 4]

  Args:
    expert_BA: the expert of each assignment, in the order of the text.
    num_experts: how many there are.
    capacity: how many assignments of a row each expert takes.
  """
  batch, _ = expert_BA.shape
  chosen_BAX = jax.nn.one_hot(expert_BA, num_experts, dtype=jnp.int32)
  before_BAX = jnp.cumsum(chosen_BAX, axis=1) - chosen_BAX
  rank_BA = jnp.sum(before_BAX * chosen_BAX, axis=2)
  block = batch * capacity
  slot_BA = expert_BA * block + jnp.arange(batch)[:, None] * capacity + rank_BA
  slot_BA = jnp.where(rank_BA < capacity, slot_BA, num_experts * block)
  return Plan(slot_BA.reshape(-1), jnp.arange(num_experts), block)
