# SPDX-License-Identifier: Apache-2.0
"""Texts of many clients, drawn in few batches.

One thread draws; everything else is done on the event loop between two chunks
of tokens, while that thread waits, so that nothing needs a lock. Rows wait in a
queue of bounded length. The oldest is taken together with those behind it whose
filters differ from its own in numbers alone; they are drawn to their end, and
only then the next batch begins. A text flows to its client chunk by chunk, and
one whose client is gone is ended at the next chunk.
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

from lmjax.decoding.filters import Filter
from lmjax.decoding.filters.stacking import kind
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.requests import Request

_PAUSE = 0.005  # seconds without a new row behind which no more are waited for
_MOST_PAUSES = 10


class QueueFull(Exception):
  """The queue has no room for so many rows."""


class ServerClosing(Exception):
  """No more rows are drawn."""


class Delta(NamedTuple):
  """What is new of a text.

  Attributes:
    text: the characters that are new.
    tokens: the tokens that are new; their text may come later.
    log_probs: of each of them, in nats.
    top_logprobs: the most likely tokens at each position; see
      lmjax.generation.results.GeneratedChunk.
    finish_reason: "stop", "length", or "" where the text goes on.
  """

  text: str
  tokens: list[int]
  log_probs: list[float]
  top_logprobs: list[list[tuple[int, float]]]
  finish_reason: str


@dataclasses.dataclass(eq=False)
class Row:
  """A text that a client asked for.

  Attributes:
    request: what is to be gone on from.
    filters: what its tokens are chosen by.
    text: what the text grows in.
    num_top_logprobs: how many likely tokens to tell beside each that is drawn.
    index: its number among those that share the inbox.
    inbox: gets (index, news), or an exception as news.
    wanted: whether somebody waits for it.
    num_sent: how many tokens were sent.
  """

  request: Request
  filters: tuple[Filter, ...]
  text: StreamingDetokenizer
  num_top_logprobs: int
  index: int
  inbox: asyncio.Queue
  wanted: bool = True
  num_sent: int = 0

  @functools.cached_property
  def kind(self) -> Hashable:
    """Name what rows of a batch have in common."""
    return kind(self.filters)

  def send(self, text: str) -> None:
    """Send the delta, and end the text if its client is gone."""
    new = slice(self.num_sent, None)
    self.num_sent = len(self.text.tokens)
    if not self.wanted:
      self.text.finish()
      return
    news = Delta(
      text,
      self.text.tokens[new],
      self.text.log_probs[new],
      self.text.top_logprobs[new],
      self.text.finish_reason,
    )
    self.inbox.put_nowait((self.index, news))
    self.wanted = not news.finish_reason

  def fail(self, error: Exception) -> None:
    """Send why there is no more of the text."""
    if self.wanted:
      self.inbox.put_nowait((self.index, error))


# Rows whose filters are of one kind → what is new of each text, chunk by chunk.
Draw = Callable[[Sequence[Row]], Iterator[list[str]]]


class Batcher:
  """Draw rows as they come.

  Args:
    draw: runs in a thread of its own.
    max_batch: rows that are drawn at once.
    max_queue: rows that may wait.
  """

  def __init__(self, draw: Draw, max_batch: int, max_queue: int):
    self._draw, self._max_batch, self._max_queue = draw, max_batch, max_queue
    self._queue: list[Row] = []
    self._running: list[Row] = []
    self._arrived, self._closing = asyncio.Event(), False
    self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")

  @property
  def num_waiting(self) -> int:
    """Count the rows in the queue that somebody waits for."""
    return sum(row.wanted for row in self._queue)

  @property
  def num_running(self) -> int:
    """Count the rows being drawn that somebody waits for."""
    return sum(row.wanted for row in self._running)

  def add(self, rows: Sequence[Row]) -> None:
    """Put rows into the queue.

    Raises:
      QueueFull: if it has no room for all of them.
      ServerClosing: if it was closed.
    """
    if self._closing:
      raise ServerClosing
    if self.num_waiting + len(rows) > self._max_queue:
      raise QueueFull
    self._queue.extend(rows)
    self._arrived.set()

  def close(self) -> None:
    """Take no more rows, and send those away that wait; others are drawn."""
    self._closing = True
    for row in self._queue:
      row.fail(ServerClosing())
    self._queue.clear()
    self._arrived.set()

  async def run(self) -> None:
    """Draw until the queue is closed."""
    while not self._closing:
      await self._arrived.wait()
      await self._gather()
      self._running = self._take()
      if self._running:
        await self._write(self._running)
        self._running = []
    self._thread.shutdown(wait=False)

  async def _gather(self) -> None:
    """Wait while rows come, as those do that were sent together."""
    for _ in range(_MOST_PAUSES):
      known = len(self._queue)
      await asyncio.sleep(_PAUSE)
      if len(self._queue) == known or known >= self._max_batch:
        return

  def _take(self) -> list[Row]:
    """Take the oldest row, and those that can be drawn with it."""
    queue = [row for row in self._queue if row.wanted]
    alike = [row for row in queue if row.kind == queue[0].kind]
    batch = alike[: self._max_batch]
    self._queue = [row for row in queue if row not in batch]
    if not self._queue:
      self._arrived.clear()
    return batch

  async def _write(self, rows: Sequence[Row]) -> None:
    loop = asyncio.get_running_loop()
    chunks = self._draw(rows)
    step = functools.partial(next, chunks, None)
    try:
      while (new := await loop.run_in_executor(self._thread, step)) is not None:
        for row, text in zip(rows, new, strict=True):
          row.send(text)
    except Exception as error:  # of one batch; the next may do better
      logging.exception("A batch of %d texts failed.", len(rows))
      for row in rows:
        row.fail(error)


async def news_of(rows: Sequence[Row]) -> AsyncIterator[tuple[int, Delta]]:
  """Follow rows that share an inbox until all texts have ended.

  Raises:
    Exception: what a row failed of.
  """
  unfinished = len(rows)
  while unfinished:
    index, news = await rows[0].inbox.get()
    if isinstance(news, Exception):
      raise news
    unfinished -= bool(news.finish_reason)
    yield index, news
