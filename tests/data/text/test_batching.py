# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from lmjax.data.loader import load
from lmjax.data.shuffle import permute
from lmjax.data.text.batching import (
  EVAL_ORDERS,
  ContiguousStreams,
  OrderedSequences,
  ShuffledSequences,
)

ORDERS = (ShuffledSequences, OrderedSequences, ContiguousStreams)


@dataclasses.dataclass
class Numbers:
  """A stream whose tokens are their own positions."""

  num_tokens: int
  starts: np.ndarray

  @property
  def tokens(self):
    return np.arange(self.num_tokens)

  @property
  def reset_positions(self):
    return self.starts


STREAM = Numbers(103, np.array([0, 10, 50, 51]))


@pytest.mark.parametrize("size", [1, 2, 3, 17, 100, 1025])
@pytest.mark.parametrize("key", [0, 1, 2**63])
def test_permutations_are_bijections(size, key):
  keys = np.full(size, key, np.uint64)
  places = permute(np.arange(size), size, keys)
  assert sorted(places) == list(range(size))


def test_keys_give_different_well_mixed_permutations():
  size = 1000
  first, second = (
    permute(np.arange(size), size, np.full(size, key, np.uint64))
    for key in (1, 2)
  )
  assert (first == second).mean() < 0.01
  assert (first == np.arange(size)).mean() < 0.01
  assert abs(np.corrcoef(first, np.arange(size))[0, 1]) < 0.1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts_sees_the_same_global_batches(order, hosts):
  options = dict(seed=3, reset_at_documents=True)
  whole = order(STREAM, 5, 4, **options)
  slices = [
    order(STREAM, 5, 4, **options, process_index=index, process_count=hosts)
    for index in range(hosts)
  ]
  for number in (0, 1, 3, 29):
    batch = whole[number]
    for field in batch:
      together = np.concatenate([part[number][field] for part in slices])
      np.testing.assert_array_equal(batch[field], together)


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_is_a_pure_function_of_seed_and_number(order):
  a, b = (order(STREAM, 5, 4, seed=1) for _ in range(2))
  for number in (7, 2, 7):
    np.testing.assert_array_equal(a[number]["inputs"], b[number]["inputs"])


@pytest.mark.parametrize("order", ORDERS)
def test_targets_follow_inputs(order):
  for number in range(4):
    batch = order(STREAM, 5, 4)[number]
    counts = batch["weights"] > 0
    np.testing.assert_array_equal(
      batch["targets"][counts], batch["inputs"][counts] + 1
    )


def test_shuffled_windows_meet_each_window_once_an_epoch():
  windows = ShuffledSequences(STREAM, seq_len=5, batch_size=1, seed=0)
  num_sequences = 102 // 5 - 1
  orders = []
  for epoch in range(2):
    starts = np.array(
      [
        windows[epoch * num_sequences + i]["inputs"][0, 0]
        for i in range(num_sequences)
      ]
    )
    assert sorted(starts - starts.min()) == list(range(0, 5 * num_sequences, 5))
    orders.append(starts)
  assert not np.array_equal(*orders)
  assert orders[0].min() != orders[1].min()  # cut at another offset
  other = ShuffledSequences(STREAM, seq_len=5, batch_size=1, seed=1)
  assert other[0]["inputs"][0, 0] != windows[0]["inputs"][0, 0]


def test_shuffled_windows_work_on_the_shortest_corpus():
  stream = Numbers(6, np.array([0]))
  batch = ShuffledSequences(stream, seq_len=5, batch_size=3)[0]
  np.testing.assert_array_equal(batch["inputs"], [np.arange(5)] * 3)
  assert batch["weights"].all()


@pytest.mark.parametrize("order", EVAL_ORDERS.values())
@pytest.mark.parametrize("num_tokens", [2, 6, 41, 103])
def test_evaluation_meets_every_target_once(order, num_tokens):
  stream = Numbers(num_tokens, np.array([0]))
  batches = order(stream, seq_len=5, batch_size=4)
  met = []
  for number in range(len(batches)):
    batch = batches[number]
    met += batch["targets"][batch["weights"] > 0].tolist()
  assert sorted(met) == list(range(1, num_tokens))


def test_lanes_go_on_where_they_stopped():
  streams = ContiguousStreams(STREAM, seq_len=5, batch_size=4)
  for number in range(len(streams) - 1):
    now, then = streams[number], streams[number + 1]
    is_active = then["weights"][:, 0] > 0
    np.testing.assert_array_equal(
      now["targets"][is_active, -1], then["inputs"][is_active, 0]
    )
    assert is_active.sum() >= 3


def test_lanes_empty_the_memory_at_their_ends_alone():
  streams = ContiguousStreams(STREAM, seq_len=5, batch_size=4)
  for number in range(2 * len(streams)):
    resets = streams[number]["resets"]
    assert resets[:, 0].all() == (number % len(streams) == 0)
    assert not resets[:, 1:].any()


@pytest.mark.parametrize("order", ORDERS)
def test_resets_mark_documents(order):
  batches = order(STREAM, 5, 4, reset_at_documents=True)
  for number in range(3):
    batch = batches[number]
    resets = batch["resets"].copy()
    expected = np.isin(batch["inputs"], STREAM.starts)
    if order is ContiguousStreams and number == 0:
      expected[:, 0] = True
    expected &= batch["weights"] > 0
    np.testing.assert_array_equal(resets & (batch["weights"] > 0), expected)


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_the_loader_starts_anywhere_in_order(num_threads):
  windows = ShuffledSequences(STREAM, 5, 4)
  loaded = list(load(windows, 3, 9, num_threads))
  assert len(loaded) == 6
  for number, batch in enumerate(loaded, 3):
    np.testing.assert_array_equal(batch["inputs"], windows[number]["inputs"])
