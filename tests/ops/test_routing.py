# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.routing import plan_for_all, plan_within

X = 5


@pytest.mark.parametrize("number", [1, 2, 6, 41])
@pytest.mark.parametrize("even", [True, False])
def test_everyone_has_a_slot_with_the_right_expert(number, even):
  rng = np.random.default_rng(number)
  experts = rng.integers(0, X if even else 2, number)
  plan = plan_for_all(jnp.array(experts), X, most=8)
  slots = np.array(plan.slot_A)
  assert len(set(slots)) == number
  np.testing.assert_array_equal(plan.expert_N[slots // plan.block], experts)
  assert np.all(np.diff(plan.expert_N) >= 0)
  assert len(plan.expert_N) * plan.block <= number + X * (plan.block - 1)


def test_the_first_of_each_row_are_taken():
  rows = jnp.array([[1, 0, 1, 1], [0, 0, 0, 1]])
  plan = plan_within(rows, num_experts=2, capacity=2)
  # Expert 0 has slots 0 to 3, expert 1 has 4 to 7, each row two of them.
  np.testing.assert_array_equal(plan.slot_A, [4, 0, 5, 8, 2, 3, 8, 6])
  np.testing.assert_array_equal(plan.expert_N, [0, 1])
  assert plan.block == 4
