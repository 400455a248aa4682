# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from lmjax.data.records.buckets import Buckets, divide
from lmjax.data.records.encoded import Encoded

GROUPS = {"mask": ("inputs", "tags"), "goal_mask": ("targets",)}
PADS = {"tags": -1}


def example(number: int, length: int, target_length: int = 1) -> dict:
  """An example whose values tell its number; places count from 1."""
  return dict(
    inputs=np.arange(1, length + 1, dtype=np.int32) + 100 * number,
    tags=np.full((length, 2), number, np.int32),
    targets=np.full(target_length, number, np.int32),
    label=np.int32(number),
    weights=np.float32(1.0),
  )


def encode(lengths, target_lengths=None) -> Encoded:
  ones = itertools.repeat(1)
  examples = map(example, itertools.count(), lengths, target_lengths or ones)
  return Encoded.of(examples, GROUPS, PADS)


LENGTHS = np.random.default_rng(0).integers(1, 60, 101)


def epoch(buckets: Buckets, number: int) -> list[np.ndarray]:
  size = len(buckets)
  return [buckets.rows(number * size + i) for i in range(size)]


def test_examples_are_end_to_end_and_padded_side_by_side():
  encoded = encode([2, 3], [1, 2])
  assert len(encoded) == 2
  assert encoded.values["inputs"].tolist() == [1, 2, 101, 102, 103]
  assert encoded.starts["mask"].tolist() == [0, 2, 5]
  assert encoded.lengths().tolist() == [[2, 1], [3, 2]]
  batch = encoded.batch(np.array([1, 0]), [4, 2])
  assert batch["inputs"].tolist() == [[101, 102, 103, 0], [1, 2, 0, 0]]
  assert batch["mask"].tolist() == [
    [True] * 3 + [False],
    [True] * 2 + [False] * 2,
  ]
  assert batch["tags"][1].tolist() == [[0, 0], [0, 0], [-1, -1], [-1, -1]]
  assert batch["targets"].tolist() == [[1, 1], [0, 0]]
  assert batch["goal_mask"].tolist() == [[True, True], [True, False]]
  assert batch["label"].tolist() == [1, 0]
  dtypes = {name: values.dtype.name for name, values in batch.items()}
  assert dtypes == dict(
    inputs="int32",
    tags="int32",
    targets="int32",
    label="int32",
    weights="float32",
    mask="bool",
    goal_mask="bool",
  )


def test_rows_that_fill_up_weigh_nothing_and_leave_the_others_alone():
  encoded = encode([2, 3])
  batch = encoded.batch(np.array([1, -1, 0, -1]), [4, 1])
  assert batch["weights"].tolist() == [1.0, 0.0, 1.0, 0.0]
  assert batch["mask"].any(axis=1).all()  # no row is without a token
  assert encoded.values["weights"].tolist() == [1.0, 1.0]
  only_filling = encoded.batch(np.array([-1, -1]), [4, 1])
  assert only_filling["weights"].tolist() == [0.0, 0.0]
  assert only_filling["mask"].any(axis=1).all()


def test_what_is_saved_is_opened_and_mapped(tmp_path):
  encoded = encode([2, 3, 1], [0, 0, 0])
  encoded.save(tmp_path)
  opened = Encoded.open(tmp_path, GROUPS, PADS)
  assert isinstance(opened.values["inputs"], np.memmap)
  assert list(opened.starts) == list(GROUPS)
  rows = np.array([2, 0, -1])
  before, after = encoded.batch(rows, [3, 1]), opened.batch(rows, [3, 1])
  assert before.keys() == after.keys()
  for name, values in before.items():
    assert values.dtype == after[name].dtype
    np.testing.assert_array_equal(values, after[name])


def test_examples_are_not_kept_while_they_are_read():
  alive = []

  class Tracked(dict):
    def __init__(self, *args):
      super().__init__(*args)
      alive.append(1)

    def __del__(self):
      alive.pop()

  most = 0

  def examples():
    nonlocal most
    for number in range(50):
      yield Tracked(example(number, 3))
      most = max(most, len(alive))

  assert len(Encoded.of(examples(), GROUPS, PADS)) == 50
  assert most <= 2


def brute_force(lengths, parts: int) -> int:
  """The least sum of tops over all ways to choose at most so many tops."""
  values = sorted(set(lengths))
  costs = []
  for number in range(1, parts + 1):
    for tops in itertools.combinations(values, min(number, len(values))):
      if tops[-1] == values[-1]:
        costs.append(sum(min(t for t in tops if t >= x) for x in lengths))
  return min(costs)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 9])
def test_lengths_are_divided_with_the_least_padding(parts):
  rng = np.random.default_rng(parts)
  for _ in range(20):
    lengths = rng.geometric(0.15, rng.integers(1, 12))
    tops = divide(lengths, parts)
    assert len(tops) <= parts and list(tops) == sorted(set(tops))
    cost = sum(min(top for top in tops if top >= x) for x in lengths)
    assert cost == brute_force(lengths.tolist(), parts)


def test_the_example_of_divide():
  assert divide(np.array([2, 2, 3, 9, 10, 30]), 3).tolist() == [3, 10, 30]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
  ("batch_size", "num_buckets"), [(8, 4), (7, 1), (101, 9)]
)
def test_each_epoch_has_every_row_once(shuffled, batch_size, num_buckets):
  buckets = Buckets(encode(LENGTHS), batch_size, num_buckets, 5, shuffled)
  assert len(buckets) == -(-len(LENGTHS) // batch_size)
  for number in (0, 1, 5):
    rows = np.concatenate(epoch(buckets, number))
    assert sorted(rows[rows >= 0]) == list(range(len(LENGTHS)))
    assert (rows < 0).sum() == len(buckets) * batch_size - len(LENGTHS)


def test_no_row_is_longer_than_its_batch_and_shapes_are_few():
  rng = np.random.default_rng(1)
  encoded = encode(LENGTHS, rng.integers(1, 40, len(LENGTHS)).tolist())
  buckets = Buckets(encoded, 8, 3, 5, True)
  shapes = set()
  for index in range(2 * len(buckets)):
    batch = buckets[index]
    shapes.add((batch["mask"].shape[1], batch["goal_mask"].shape[1]))
    rows = buckets.rows(index)
    for row, number in enumerate(rows):
      if number >= 0:
        length, target_length = encoded.lengths()[number]
        assert batch["mask"][row].sum() == length
        assert batch["goal_mask"][row].sum() == target_length
        assert batch["inputs"][row, length - 1] == 100 * number + length
  assert shapes <= {tuple(shape) for shape in buckets.shapes}
  assert 2 <= len(shapes) <= 3
  assert all(size % 8 == 0 for shape in shapes for size in shape)


def test_what_is_left_of_a_bucket_fits_into_the_next():
  encoded = encode([1, 40, 40], [20, 1, 1])
  buckets = Buckets(encoded, 2, 2)
  assert buckets.shapes == [[8, 24], [40, 24]]
  batch = buckets[0]
  assert batch["mask"].sum(axis=1).tolist() == [1, 40]
  assert batch["goal_mask"].sum(axis=1).tolist() == [20, 1]


def test_more_buckets_pad_less():
  sizes = [
    Buckets(encode(LENGTHS), 4, number, 5, True).tokens_per_batch
    for number in (1, 2, 4, 99)
  ]
  assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 2


def test_a_batch_is_a_function_of_the_seed_and_its_number():
  one, two, other = (
    Buckets(encode(LENGTHS), 8, 4, seed, True) for seed in (5, 5, 6)
  )
  order = [31, 2, 0, 14, 31]  # in any order, of any epoch
  first = {index: one[index]["inputs"] for index in order}
  for index in sorted(order):
    np.testing.assert_array_equal(first[index], two[index]["inputs"])
  assert any(
    not np.array_equal(one.rows(index), other.rows(index)) for index in order
  )


def test_a_shuffled_epoch_differs_from_the_one_before():
  shuffled = Buckets(encode(LENGTHS), 8, 4, 5, True)
  first, second = epoch(shuffled, 0), epoch(shuffled, 1)
  assert not any(
    np.array_equal(a, b) for a, b in zip(first, second, strict=True)
  )
  together = {frozenset(rows.tolist()) for rows in first}
  assert not together & {frozenset(rows.tolist()) for rows in second}
  widths = [shuffled[index]["mask"].shape[1] for index in range(len(shuffled))]
  assert widths != sorted(widths)
  plain = Buckets(encode(LENGTHS), 8, 4, 5, False)
  np.testing.assert_array_equal(epoch(plain, 0), epoch(plain, 3))
  rows = np.concatenate(epoch(plain, 0))[: len(LENGTHS)]
  rounded = -(-LENGTHS[rows] // 8)
  assert rounded.tolist() == sorted(rounded)


@pytest.mark.parametrize("shuffled", [False, True])
def test_slices_of_processes_together_are_the_global_batch(shuffled):
  encoded = encode(LENGTHS)
  whole = Buckets(encoded, 12, 4, 5, shuffled)
  parts = [Buckets(encoded, 12, 4, 5, shuffled, i, 3) for i in range(3)]
  for index in range(len(whole)):
    wanted, slices = whole[index], [part[index] for part in parts]
    for name in wanted:
      together = np.concatenate([each[name] for each in slices])
      counted = wanted["weights"] > 0  # what fills up may differ
      np.testing.assert_array_equal(together[counted], wanted[name][counted])
    together = np.concatenate([each["weights"] for each in slices])
    np.testing.assert_array_equal(together, wanted["weights"])


def test_a_batch_may_be_larger_than_the_data():
  buckets = Buckets(encode([3, 1, 2]), 8, 4, 0, True)
  assert len(buckets) == 1
  batch = buckets[7]
  assert batch["weights"].sum() == 3
  assert batch["mask"].shape == (8, 8)
  last = Buckets(encode([3, 1, 2]), 8, 4, 0, True, 3, 4)[0]
  assert last["weights"].tolist() == [0.0, 0.0] and last["mask"].any(1).all()


def test_more_buckets_than_lengths_are_as_many_as_lengths():
  assert Buckets(encode([1, 8, 9, 9]), 2, 99).shapes == [[8, 8], [16, 8]]
