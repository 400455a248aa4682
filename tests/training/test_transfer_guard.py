# SPDX-License-Identifier: Apache-2.0
"""The guard of this folder's conftest.py finds batches left on the host."""

import jax
import numpy as np
import pytest

from lmjax.parallel.jit import JitStrategy
from lmjax.train_state import TrainState


def test_steps_raise_an_error_for_batches_on_the_host():
  strategy = JitStrategy(jax.devices()[:1], dict(data=1))
  arrays = jax.device_put((np.zeros((), np.int32), dict(w=np.ones(3))))
  state = TrainState(arrays[0], arrays[1], (), {}, None, jax.random.key(0))
  state = strategy.device_put(state)

  def step(state, batch, all_reduce):
    return state, all_reduce(batch["x"].sum())

  compiled = strategy.compile_step(step, state, donate=False)
  batch = dict(x=np.ones((2, 3), np.float32))
  _, total = compiled(state, strategy.shard_batch(batch))
  assert float(total) == 6
  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    compiled(state, batch)
