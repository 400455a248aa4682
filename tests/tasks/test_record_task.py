# SPDX-License-Identifier: Apache-2.0
import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lmjax.metrics.sums import Sums
from lmjax.tasks.record_task import RecordTask
from lmjax.train_state import ModelState


class Experts(nn.Module):
  """Answers with its inputs, and has two losses beside the task's."""

  @nn.compact
  def __call__(self, x_B):
    self.sow("losses", "balance", jnp.array(2.0))
    self.sow("losses", "router", jnp.array([1.0, 0.5]))
    count = self.variable("state", "count", lambda: jnp.zeros(()))
    if self.is_mutable_collection("state"):
      count.value += 1
    return x_B


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(RecordTask):
  def inputs(self, batch):
    return (batch["x"],)

  def sums(self, answers, batch, train):
    weights_B = batch["weights"]
    return Sums(jnp.sum(answers * weights_B), weights_B.sum(), {})


BATCH = dict(x=np.array([1.0, 2.0, 9.0]), weights=np.array([1.0, 1.0, 0.0]))


def test_auxiliary_losses_weigh_like_rows_in_training_alone():
  task, collections = Sum(Experts()), {"state": {"count": jnp.zeros(())}}
  learned = task.loss({}, ModelState(collections, None), BATCH, {}, train=True)
  assert learned.sums.loss == 1.0 + 2.0 + 2 * 3.5
  assert set(learned.model_state.collections) == {"state"}
  assert learned.model_state.collections["state"]["count"] == 1
  judged = task.loss({}, ModelState(collections, None), BATCH, {}, train=False)
  assert judged.sums.loss == 3.0 and judged.sums.weight == 2.0
  assert judged.model_state.collections["state"]["count"] == 0
