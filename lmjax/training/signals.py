# SPDX-License-Identifier: Apache-2.0
"""Stopping politely when the system or the user asks for it."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclasses.dataclass
class StopRequest:
  """Whether somebody asked the run to stop.

  Attributes:
    every: how often, in steps, several processes ask each other; they must
      stop at the same step, whichever of them was signalled.
    signal: the number of the signal; 0 if none was received.
  """

  every: int
  signal: int = 0

  def is_requested(self, step: int, settle: Callable[[], None]) -> bool:
    """Say whether to stop at this step; all processes hear the same.

    Args:
      step: number of steps made.
      settle: waits for the step under way, whose collectives must not meet
        those of the question.
    """
    if jax.process_count() == 1:
      return self.signal > 0
    if step % self.every:
      return False
    settle()
    signals = multihost_utils.process_allgather(np.int32(self.signal))
    agreed = int(np.max(signals))  # one that comes just now waits its turn
    self.signal = agreed or self.signal
    return agreed > 0

  @property
  def exit_code(self) -> int:
    """Return the shell's convention: 128 + signal, 143 or 130."""
    return 128 + self.signal if self.signal else 0


@contextlib.contextmanager
def stop_on_signals(every: int) -> Iterator[StopRequest]:
  """Turn SIGTERM and Ctrl-C into a request; a second Ctrl-C interrupts."""
  request = StopRequest(every)

  def handle(number: int, frame: object) -> None:
    del frame
    request.signal = number
    signal.signal(signal.SIGINT, signal.default_int_handler)

  previous = {
    number: signal.signal(number, handle)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield request
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
