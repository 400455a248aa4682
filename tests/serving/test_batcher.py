# SPDX-License-Identifier: Apache-2.0
"""How rows form batches, and how other rows wait, fail or are refused."""

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


def row(processors=GREEDY, num_tokens=3, inbox=None, index=0):
  request = Request(np.array([LETTER]), num_tokens)
  text = StreamingDetokenizer(ByteTokenizer())
  return Row(request, processors, text, 0, index, inbox or asyncio.Queue())


class Letters:
  """A fake model that generates one letter per chunk and records batches."""

  def __init__(self):
    self.batches, self.num_chunks = [], 0
    self.may_continue = threading.Event()
    self.may_continue.set()

  def __call__(self, rows):
    self.batches.append(rows)
    if any(row.request.num_tokens > 1000 for row in rows):
      raise MemoryError
    while not all(row.text.finish_reason for row in rows):
      self.may_continue.wait()
      self.num_chunks += 1
      yield [self._push(row) for row in rows]

  def _push(self, row):
    at_end = len(row.text.tokens) + 1 == row.request.num_tokens
    finish_reason = "length" if at_end else ""
    return row.text.push(GeneratedChunk([LETTER], [-1.0], finish_reason, [[]]))


@pytest.fixture
def generate():
  return Letters()


def run(generate, scenario, max_batch=4, max_queue=6):
  """Call `scenario` with a running batcher, then close the batcher."""

  async def both():
    batcher = Batcher(generate, max_batch, max_queue)
    running = asyncio.create_task(batcher.run())
    try:
      await asyncio.wait_for(scenario(batcher), timeout=20)
    finally:
      generate.may_continue.set()
      batcher.close()
      await running

  asyncio.run(both())


async def text_of(*rows):
  return "".join([delta.text async for _, delta in receive(rows)])


def test_rows_of_one_kind_form_a_batch_and_none_starves(generate):
  cool, warm = (Temperature(0.5),), (Temperature(0.9),)

  async def scenario(batcher):
    rows = [row(), row(cool), row(), *[row(warm, 2) for _ in range(3)]]
    for each in rows:
      batcher.add([each])
    texts = await asyncio.gather(*map(text_of, rows))
    assert texts == ["aaa"] * 3 + ["aa"] * 3
    greedy, others = generate.batches
    assert greedy == [rows[0], rows[2]]
    assert others == [rows[1], *rows[3:]]

  run(generate, scenario)


def test_limits_the_batch_size(generate):
  async def scenario(batcher):
    rows = [row() for _ in range(5)]
    batcher.add(rows[:2])
    batcher.add(rows[2:])
    await asyncio.gather(*map(text_of, rows))
    assert generate.batches == [rows[:4], rows[4:]]

  run(generate, scenario)


def test_full_queue_accepts_all_rows_of_a_request_or_none(generate):
  async def scenario(batcher):
    generate.may_continue.clear()
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
    generate.may_continue.set()
    assert await text_of(first) == "aaa"

  run(generate, scenario)


def test_rows_of_disconnected_clients_stop(generate):
  async def scenario(batcher):
    generate.may_continue.clear()
    long, never = row(num_tokens=1000), row((Temperature(0.5),))
    batcher.add([long])
    batcher.add([never])
    while batcher.num_running < 1:
      await asyncio.sleep(0.001)
    long.is_connected = never.is_connected = False
    assert batcher.num_waiting == batcher.num_running == 0
    generate.may_continue.set()
    last = row()
    batcher.add([last])
    assert await text_of(last) == "aaa"
    assert generate.batches == [[long], [last]]
    assert generate.num_chunks == 1 + 3

  run(generate, scenario)


def test_failed_batch_sends_its_error_and_the_next_one_runs(generate):
  async def scenario(batcher):
    bad, good = row(num_tokens=1001), row((Temperature(0.5),))
    batcher.add([bad])
    batcher.add([good])
    with pytest.raises(MemoryError):
      await text_of(bad)
    assert await text_of(good) == "aaa"

  run(generate, scenario)


def test_close_refuses_waiting_rows_and_finishes_the_batch(generate):
  async def scenario(batcher):
    generate.may_continue.clear()
    running, waiting = row(), row((Temperature(0.5),))
    batcher.add([running])
    batcher.add([waiting])
    while batcher.num_running < 1:
      await asyncio.sleep(0.001)
    batcher.close()
    with pytest.raises(ServerClosing):
      await text_of(waiting)
    with pytest.raises(ServerClosing):
      batcher.add([row()])
    generate.may_continue.set()
    assert await text_of(running) == "aaa"

  run(generate, scenario)


def test_rows_of_a_request_share_an_inbox(generate):
  async def scenario(batcher):
    inbox = asyncio.Queue()
    rows = [row(num_tokens=n, inbox=inbox, index=n) for n in (1, 2)]
    batcher.add(rows)
    received = [
      (i, delta.text, delta.finish_reason) async for i, delta in receive(rows)
    ]
    assert received == [(1, "a", "length"), (2, "a", ""), (2, "a", "length")]

  run(generate, scenario)
