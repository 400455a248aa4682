# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of all tokens of a split."""

import jax
import numpy as np

from lmjax.data.text.batching import Rows
from lmjax.tasks.task import Task
from lmjax.types import Array, Batch, PyTree


def score_batches(task: Task, batches: Rows, variables: PyTree) -> np.ndarray:
  """Score each token of a text but the first, given those before it.

  Args:
    task: a task on running text.
    batches: batches of the text, in order.
    variables: variables of its model.

  Returns:
    Log-probabilities in nats, float32 [N], in the order of the text.
  """
  model = task.model

  @jax.jit
  def score(batch: Batch, carry: PyTree) -> tuple[Array, PyTree]:
    hidden, carry = model.apply(
      variables, batch["inputs"], carry, batch.get("resets")
    )
    log_probs_BT = model.apply(
      variables, hidden, batch["targets"], method="log_probs"
    )
    return log_probs_BT, carry

  carry = task.initial_carry(batches.batch_size)
  log_probs, counted = [], []
  for index in range(len(batches)):
    batch = batches[index]
    log_probs_BT, carry = score(batch, carry)
    log_probs.append(np.asarray(log_probs_BT))
    counted.append(batch["weights"] > 0)
  # With a state, row b continues in row b of the next batch; without one, the
  # text continues in the next row.
  axis = 1 if task.stateful else 0
  return np.concatenate(log_probs, axis)[np.concatenate(counted, axis)]
