# SPDX-License-Identifier: Apache-2.0
"""Where arrays live and how a step runs on many devices.

A strategy is the only thing that chooses devices; both kinds offer

    state = strategy.create(make_state)      # a new one, on the devices
    state = strategy.place(state)            # one that was collected
    batch = strategy.shard_batch(batch)      # this process's rows → one array
    step  = strategy.compile_step(step, state)
    state = strategy.collect(state)          # as a checkpoint stores it
"""

from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy

Strategy = JitStrategy | PmapStrategy
STRATEGIES = {"jit": JitStrategy, "pmap": PmapStrategy}
