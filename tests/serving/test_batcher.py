# SPDX-License-Identifier: Apache-2.0
"""Who is drawn with whom, and what becomes of those who are not."""

import asyncio
import threading

import numpy as np
import pytest

from lmjax.data.tokenizers import ByteTokenizer
from lmjax.decoding.logits_processors import Greedy, Temperature
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.requests import Request
from lmjax.generation.results import GeneratedChunk
from lmjax.serving.batcher import (
  Batcher,
  QueueFull,
  Row,
  ServerClosing,
  receive,
)

GREEDY = (Greedy(),)
LETTER = int(ByteTokenizer().encode("a")[0])


def row(filters=GREEDY, num_tokens=3, inbox=None, index=0):
  request = Request(np.array([LETTER]), num_tokens)
  text = StreamingDetokenizer(ByteTokenizer())
  return Row(request, filters, text, 0, index, inbox or asyncio.Queue())


class Letters:
  """Draws a letter at a time; keeps what it was asked for."""

  def __init__(self):
    self.batches, self.num_chunks = [], 0
    self.may_go_on = threading.Event()
    self.may_go_on.set()

  def __call__(self, rows):
    self.batches.append(rows)
    if any(row.request.num_tokens > 1000 for row in rows):
      raise MemoryError
    while not all(row.text.finish_reason for row in rows):
      self.may_go_on.wait()
      self.num_chunks += 1
      yield [self._push(row) for row in rows]

  def _push(self, row):
    at_end = len(row.text.tokens) + 1 == row.request.num_tokens
    finish_reason = "length" if at_end else ""
    return row.text.push(GeneratedChunk([LETTER], [-1.0], finish_reason, [[]]))


@pytest.fixture
def draw():
  return Letters()


def run(draw, ask, max_batch=4, max_queue=6):
  """Let `ask` use a batcher that is running, then close it."""

  async def both():
    batcher = Batcher(draw, max_batch, max_queue)
    running = asyncio.create_task(batcher.run())
    try:
      await asyncio.wait_for(ask(batcher), timeout=20)
    finally:
      draw.may_go_on.set()
      batcher.close()
      await running

  asyncio.run(both())


async def text_of(*rows):
  return "".join([delta.text async for _, delta in receive(rows)])


def test_rows_of_one_kind_share_a_batch_and_none_is_overtaken_for_good(draw):
  cool, warm = (Temperature(0.5),), (Temperature(0.9),)

  async def ask(batcher):
    rows = [row(), row(cool), row(), *[row(warm, 2) for _ in range(3)]]
    for each in rows:
      batcher.add([each])
    texts = await asyncio.gather(*map(text_of, rows))
    assert texts == ["aaa"] * 3 + ["aa"] * 3
    greedy, others = draw.batches
    assert greedy == [rows[0], rows[2]]
    assert others == [rows[1], *rows[3:]]

  run(draw, ask)


def test_a_batch_has_a_most(draw):
  async def ask(batcher):
    rows = [row() for _ in range(5)]
    batcher.add(rows[:2])
    batcher.add(rows[2:])
    await asyncio.gather(*map(text_of, rows))
    assert draw.batches == [rows[:4], rows[4:]]

  run(draw, ask)


def test_a_full_queue_takes_all_rows_or_none(draw):
  async def ask(batcher):
    draw.may_go_on.clear()
    first = row()
    batcher.add([first])
    while batcher.num_running < 1:
      await asyncio.sleep(0.001)
    batcher.add([row() for _ in range(5)])
    with pytest.raises(QueueFull):
      batcher.add([row(), row()])
    assert batcher.num_waiting == 5
    batcher.add([row()])
    with pytest.raises(QueueFull):
      batcher.add([row()])
    draw.may_go_on.set()
    assert await text_of(first) == "aaa"

  run(draw, ask)


def test_rows_that_nobody_waits_for_are_drawn_no_further(draw):
  async def ask(batcher):
    draw.may_go_on.clear()
    long, never = row(num_tokens=1000), row((Temperature(0.5),))
    batcher.add([long])
    batcher.add([never])
    while batcher.num_running < 1:
      await asyncio.sleep(0.001)
    long.is_connected = never.is_connected = False
    assert batcher.num_waiting == batcher.num_running == 0
    draw.may_go_on.set()
    last = row()
    batcher.add([last])
    assert await text_of(last) == "aaa"
    assert draw.batches == [[long], [last]]
    assert draw.num_chunks == 1 + 3

  run(draw, ask)


def test_a_batch_that_fails_is_told_of_and_the_next_is_drawn(draw):
  async def ask(batcher):
    bad, good = row(num_tokens=1001), row((Temperature(0.5),))
    batcher.add([bad])
    batcher.add([good])
    with pytest.raises(MemoryError):
      await text_of(bad)
    assert await text_of(good) == "aaa"

  run(draw, ask)


def test_closing_ends_what_waits_and_not_what_is_drawn(draw):
  async def ask(batcher):
    draw.may_go_on.clear()
    sampled, waiting = row(), row((Temperature(0.5),))
    batcher.add([sampled])
    batcher.add([waiting])
    while batcher.num_running < 1:
      await asyncio.sleep(0.001)
    batcher.close()
    with pytest.raises(ServerClosing):
      await text_of(waiting)
    with pytest.raises(ServerClosing):
      batcher.add([row()])
    draw.may_go_on.set()
    assert await text_of(sampled) == "aaa"

  run(draw, ask)


def test_rows_of_one_client_come_as_they_are_drawn(draw):
  async def ask(batcher):
    inbox = asyncio.Queue()
    rows = [row(num_tokens=n, inbox=inbox, index=n) for n in (1, 2)]
    batcher.add(rows)
    told = [
      (i, delta.text, delta.finish_reason) async for i, delta in receive(rows)
    ]
    assert told == [(1, "a", "length"), (2, "a", ""), (2, "a", "length")]

  run(draw, ask)
