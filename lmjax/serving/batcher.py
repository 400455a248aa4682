# SPDX-License-Identifier: Apache-2.0
"""Dynamic batching of the requests of many clients.

One thread generates. Everything else runs on the event loop between two chunks
of tokens, while that thread waits, so nothing needs a lock. Rows wait in a
bounded queue. The oldest row forms a batch with later ones whose logits
processors differ in numbers only, because these share a compiled program. A
batch is generated to its end before the next one starts. Text is sent to its
client chunk by chunk, and rows of disconnected clients stop at the next chunk.
"""

import asyncio
import dataclasses
import functools
import logging
from collections.abc import (
  AsyncIterator,
  Callable,
  Hashable,
  Iterator,
  Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.decoding.logits_processors.stacking import kind
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.requests import Request

# Requests that are sent at the same time arrive within milliseconds. A batch
# waits until no row came for this many seconds, at most this many times.
_WAIT_SECONDS = 0.005
_MAX_WAITS = 10


class QueueFull(Exception):
  """The queue has no room for all rows of a request."""


class ServerClosing(Exception):
  """The server accepts no more requests."""


class Delta(NamedTuple):
  """New text and tokens of a row.

  Attributes:
    text: the new text.
    tokens: the new tokens; their text may follow later.
    log_probs: log-probability of each token, in nats.
    top_logprobs: the most likely tokens at each position; see
      lmjax.generation.results.GeneratedChunk.
    finish_reason: "stop", "length", or "" if the text is not finished.
  """

  text: str
  tokens: list[int]
  log_probs: list[float]
  top_logprobs: list[list[tuple[int, float]]]
  finish_reason: str


# Rows are compared by identity, because == of two requests compares arrays.
@dataclasses.dataclass(eq=False)
class Row:
  """One text to generate for a client.

  Attributes:
    request: the prompt to continue.
    logits_processors: its logits processors.
    text: receives the generated tokens.
    num_top_logprobs: number of most likely tokens returned per position.
    index: index of the text in its request.
    inbox: receives (index, Delta), or (index, exception) after a failure; the
      rows of a request share it.
    is_connected: whether the client still waits for the text.
    num_sent: number of tokens that were sent.
  """

  request: Request
  logits_processors: tuple[LogitsProcessor, ...]
  text: StreamingDetokenizer
  num_top_logprobs: int
  index: int
  inbox: asyncio.Queue
  is_connected: bool = True
  num_sent: int = 0

  @functools.cached_property
  def kind(self) -> Hashable:
    """Key that all rows of a batch share."""
    return kind(self.logits_processors)

  def send(self, text: str) -> None:
    """Send new text, or finish the row if its client has disconnected."""
    new = slice(self.num_sent, None)
    self.num_sent = len(self.text.tokens)
    if not self.is_connected:
      self.text.finish()
      return
    delta = Delta(
      text,
      self.text.tokens[new],
      self.text.log_probs[new],
      self.text.top_logprobs[new],
      self.text.finish_reason,
    )
    self.inbox.put_nowait((self.index, delta))
    # A batch continues until its longest row; a finished row sends no more.
    self.is_connected = not delta.finish_reason

  def send_error(self, error: Exception) -> None:
    """Send an error instead of more text."""
    if self.is_connected:
      self.inbox.put_nowait((self.index, error))


# Rows of one kind → the new text of each row, chunk by chunk.
GenerateBatch = Callable[[Sequence[Row]], Iterator[list[str]]]


class Batcher:
  """Generate the texts of waiting rows in batches.

  Args:
    generate_batch: generates a batch; runs in a thread of its own.
    max_batch: maximum number of rows of a batch.
    max_queue: maximum number of waiting rows.
  """

  def __init__(
    self, generate_batch: GenerateBatch, max_batch: int, max_queue: int
  ):
    self._generate_batch = generate_batch
    self._max_batch, self._max_queue = max_batch, max_queue
    self._queue: list[Row] = []
    self._running: list[Row] = []
    self._arrived, self._closing = asyncio.Event(), False
    # Generation blocks for a chunk at a time. In a thread of its own, it leaves
    # the event loop free to accept requests and to notice disconnects.
    self._thread = ThreadPoolExecutor(1, thread_name_prefix="generate")

  @property
  def num_waiting(self) -> int:
    """Number of waiting rows of connected clients."""
    return sum(row.is_connected for row in self._queue)

  @property
  def num_running(self) -> int:
    """Number of rows in the current batch of connected clients."""
    return sum(row.is_connected for row in self._running)

  def add(self, rows: Sequence[Row]) -> None:
    """Add the rows of a request to the queue.

    Raises:
      QueueFull: if it has no room for all of them.
      ServerClosing: if the server is shutting down.
    """
    if self._closing:
      raise ServerClosing
    # Backpressure: clients get status 429 at once instead of a wait without
    # bound. Rows of disconnected clients do not count, though they are removed
    # only when the next batch is formed.
    if self.num_waiting + len(rows) > self._max_queue:
      raise QueueFull
    self._queue.extend(rows)
    self._arrived.set()

  def close(self) -> None:
    """Refuse waiting and new rows; the current batch is finished."""
    self._closing = True
    for row in self._queue:
      row.send_error(ServerClosing())
    self._queue.clear()
    self._arrived.set()  # wakes `run`, which may be waiting for rows

  async def run(self) -> None:
    """Generate batches until `close` is called."""
    while not self._closing:
      await self._arrived.wait()
      await self._gather()
      self._running = self._take()
      if self._running:
        await self._generate(self._running)
        self._running = []
    self._thread.shutdown(wait=False)

  async def _gather(self) -> None:
    """Wait while rows keep arriving, so that they share a batch."""
    for _ in range(_MAX_WAITS):
      known = len(self._queue)
      await asyncio.sleep(_WAIT_SECONDS)
      if len(self._queue) == known or known >= self._max_batch:
        return

  def _take(self) -> list[Row]:
    """Take the oldest row and those that can share its batch."""
    queue = [row for row in self._queue if row.is_connected]
    same_kind = [row for row in queue if row.kind == queue[0].kind]
    batch = same_kind[: self._max_batch]
    self._queue = [row for row in queue if row not in batch]
    if not self._queue:
      self._arrived.clear()
    return batch

  async def _generate(self, rows: Sequence[Row]) -> None:
    loop = asyncio.get_running_loop()
    chunks = self._generate_batch(rows)
    # None marks the end, because a future cannot carry StopIteration.
    next_chunk = functools.partial(next, chunks, None)
    try:
      while True:
        texts = await loop.run_in_executor(self._thread, next_chunk)
        if texts is None:
          return
        for row, text in zip(rows, texts, strict=True):
          row.send(text)
    except Exception as error:  # the next batch may succeed
      logging.exception("A batch of %d texts failed.", len(rows))
      for row in rows:
        row.send_error(error)


async def receive(rows: Sequence[Row]) -> AsyncIterator[tuple[int, Delta]]:
  """Yield (index, delta) of rows that share an inbox until all are finished.

  Raises:
    Exception: the error of a row.
  """
  unfinished = len(rows)
  while unfinished:
    index, delta = await rows[0].inbox.get()
    if isinstance(delta, Exception):
      raise delta
    unfinished -= bool(delta.finish_reason)
    yield index, delta
