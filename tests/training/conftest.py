# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import pytest

from lmjax.parallel import STRATEGIES


@pytest.fixture(autouse=True)
def guard_transfers(monkeypatch):
  """Let compiled steps raise an error for implicit transfers.

  A step whose state or batch is still on the host would wait for a transfer in
  every call, and nothing else would show it.
  """
  for strategy in STRATEGIES.values():
    compile_step = strategy.compile_step
    monkeypatch.setattr(strategy, "compile_step", guarded(compile_step))


def guarded(compile_step):
  @functools.wraps(compile_step)
  def compile_guarded(*args, **options):
    step = compile_step(*args, **options)

    def call(state, batch):
      with jax.transfer_guard("disallow"):
        return step(state, batch)

    if hasattr(step, "lower"):  # tests read the compiled program
      call.lower = step.lower
    return call

  return compile_guarded
