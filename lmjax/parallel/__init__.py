# SPDX-License-Identifier: Apache-2.0
"""Devices: where arrays are stored, and how a step runs on many of them.

A strategy is the only thing that selects devices. Both strategies offer

    state = strategy.create(make_state)         # a new state on the devices
    state = strategy.device_put(state)          # a gathered state, again
    batch = strategy.shard_batch(batch)         # rows of this process → array
    step  = strategy.compile_step(step, state)
    state = strategy.gather(state)              # as a checkpoint stores it
"""

from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy

Strategy = JitStrategy | PmapStrategy
STRATEGIES = {"jit": JitStrategy, "pmap": PmapStrategy}
