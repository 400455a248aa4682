# SPDX-License-Identifier: Apache-2.0
"""Stopping politely when the system or the user asks for it."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator


@dataclasses.dataclass
class StopRequest:
  """Whether somebody asked the run to stop.

  Attributes:
    signal: the number of the signal; 0 if nobody did.
  """

  signal: int = 0

  @property
  def exit_code(self) -> int:
    """Return the shell's convention: 128 + signal, 143 or 130."""
    return 128 + self.signal if self.signal else 0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
  """Turn SIGTERM and Ctrl-C into a request; a second Ctrl-C interrupts."""
  request = StopRequest()

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
