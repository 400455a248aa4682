# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from lmjax.config import defaults
from lmjax.data.shuffle import mix, uniform
from lmjax.data.text.batching import OrderedSequences, ShuffledSequences
from lmjax.data.text.objectives.masking import MASK, Masking, word_starts
from lmjax.data.text.objectives.span_corruption import divide, fit
from lmjax.data.tokenizers import TOKENIZERS, ByteTokenizer, CharacterTokenizer
from lmjax.errors import UsageError
from lmjax.task_specs import TASK_SPECS
from lmjax.task_specs.build import make_objective
from tests.helpers.frequencies import assert_frequencies

PAD = ByteTokenizer.pad_id
BOS = ByteTokenizer.bos_id
EOS = ByteTokenizer.eos_id

REWRITING = sorted(n for n, s in TASK_SPECS.items() if s.objective)


@dataclasses.dataclass
class Numbers:
  """A stream that names positions: token 4 + i at place i."""

  num_tokens: int = 250
  starts: tuple = (0, 90, 95, 180)

  def __post_init__(self):
    starts = [start for start in self.starts if start < self.num_tokens]
    self.starts = self.reset_positions = np.array(starts)

  @property
  def tokens(self):
    return 4 + np.arange(self.num_tokens)


def make(task, seq_len=13, **options):
  config = defaults.get_config(model="lstm")
  config.task, config.data.seq_len = task, seq_len
  config.update_from_flattened_dict(options)
  return make_objective(config)


def batches(objective, order=ShuffledSequences, stream=None, rows=4, **options):
  rows = order(stream or Numbers(), objective.seq_len, rows, **options)
  return objective.over(
    rows, ByteTokenizer().with_special_tokens(objective.special_tokens)
  )


def keys(number):
  return mix(np.arange(number, dtype=np.uint64))


def test_draws_are_even_and_a_function_of_their_key():
  chances = uniform(keys(40), 3, 250)
  np.testing.assert_array_equal(uniform(keys(40)[7:9], 3, 250), chances[7:9])
  counts, _ = np.histogram(chances, 16, (0, 1))
  assert_frequencies(counts, np.full(16, 1 / 16))
  flat = chances.reshape(-1)
  assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("task", REWRITING)
def test_batches_are_functions_of_seed_and_number_on_any_hosts(task):
  objective = make(task)
  whole, again = (batches(objective, seed=5) for _ in range(2))
  slices = [
    batches(objective, seed=5, process_index=index, process_count=2)
    for index in range(2)
  ]
  for number in (40, 0, 3):
    batch = whole[number]
    for field, values in batch.items():
      np.testing.assert_array_equal(values, again[number][field])
      parts = [part[number][field] for part in slices]
      np.testing.assert_array_equal(values, np.concatenate(parts))


@pytest.mark.parametrize("task", sorted({*REWRITING} - {"control_codes"}))
def test_rows_that_are_met_again_are_rewritten_in_another_way(task):
  objective = make(task, **{"objective.fim_rate": 1.0})
  read = batches(objective, stream=Numbers(objective.seq_len + 1, (0,)), rows=3)
  first, later = read[0], read[1]  # one window is all the text there is
  assert any((first[field] != later[field]).any() for field in first)
  assert any((values[0] != values[1]).any() for values in first.values())
  other = batches(objective, rows=3, seed=1)[0]
  same = batches(objective, rows=3, seed=2)[0]
  assert any((other[field] != same[field]).any() for field in other)


def test_all_of_a_split_may_be_masked_and_nothing_behind_it():
  objective = make("masked_lm", **{"objective.mask_rate": 1.0})
  read = batches(objective, OrderedSequences, Numbers(31, (0,)), rows=2)
  batch = read[1]  # places 26 to 51 of 31
  places = 26 + np.arange(26).reshape(2, 13)
  np.testing.assert_array_equal(batch["mask"], places < 31)
  np.testing.assert_array_equal(batch["weights"] > 0, places < 31)
  assert "mask" not in batches(objective, stream=Numbers(31, (0,)))[0]


@pytest.mark.parametrize("task", REWRITING)
def test_nothing_behind_the_end_of_the_text_counts(task):
  objective = make(task, **{"objective.mask_rate": 0.4})
  end, last = 154, 149 // (4 * objective.seq_len)  # 4 + i is at place i
  a, b = (
    batches(objective, OrderedSequences, Numbers(size))[last]
    for size in (150, 250)
  )
  is_behind = (b["targets"] >= end) & (b["targets"] < 260)
  assert (b["weights"][is_behind] > 0).any()
  counts = a["weights"] > 0
  assert (
    counts.any() and (a["targets"][counts & (a["targets"] < 260)] < end).all()
  )
  if task != "fill_in_the_middle":  # where it cuts depends on the end
    np.testing.assert_array_equal(counts, (b["weights"] > 0) & counts)
    np.testing.assert_array_equal(a["targets"][counts], b["targets"][counts])


def test_masks_have_the_frequencies_of_the_paper():
  tokens = np.random.default_rng(0).integers(4, 260, (64, 500), np.int32)
  tokens[:, ::50] = np.array([PAD, BOS, EOS, EOS])[np.arange(64) % 4, None]
  batch = dict(inputs=tokens, weights=np.ones(tokens.shape, np.float32))
  tokenizer = ByteTokenizer().with_special_tokens((MASK,))
  new = Masking(500, 0.15, False).rewrite(batch, keys(64), tokenizer)
  chosen, inputs = new["weights"] > 0, new["inputs"]
  np.testing.assert_array_equal(new["targets"], tokens)
  np.testing.assert_array_equal(inputs[~chosen], tokens[~chosen])
  is_text = tokens > EOS
  assert not chosen[~is_text].any()
  number, total = chosen.sum(), is_text.sum()
  assert_frequencies([number, total - number], [0.15, 0.85])
  masked = (inputs[chosen] == tokenizer.special_token_id(MASK)).sum()
  kept = (inputs[chosen] == tokens[chosen]).sum()
  counts = [masked, kept, number - masked - kept]
  shares = [0.8, 0.1 + 0.1 / 256, 0.1 - 0.1 / 256]
  assert_frequencies(counts, shares)
  replaced = inputs[chosen & (inputs != tokens) & (inputs < 260)]
  counts = np.histogram(replaced, 8, (4, 260))[0]
  assert_frequencies(counts, np.full(8, 1 / 8))


def test_whole_words_are_chosen_whole():
  text = "the new cells of a list, "
  tokenizer = CharacterTokenizer.train([text], 0, 1, False)
  tokenizer = tokenizer.with_special_tokens((MASK,))
  tokens = np.tile(tokenizer.encode(text), (2000, 1))
  batch = dict(inputs=tokens, weights=np.ones(tokens.shape, np.float32))
  objective = Masking(len(text), 0.2, True)
  chosen = objective.rewrite(batch, keys(2000), tokenizer)["weights"]
  begins = [
    i for i, c in enumerate(text) if i == 0 or " " in text[i - 1 : i + 1]
  ]
  for low, high in zip(begins, [*begins[1:], len(text)], strict=True):
    assert (chosen[:, low:high] == chosen[:, low, None]).all()
    number = chosen[:, low].sum()
    assert_frequencies([number, 2000 - number], [0.2, 0.8])
  correlation = np.corrcoef(chosen[:, begins].T)
  assert np.abs(correlation - np.eye(len(begins))).max() < 0.1


def test_words_of_bpe_are_what_is_split_before_merging():
  text = "newer cells in list_iterator, see 3.14159 or\n\n  über-names: (xyz)."
  tokenizer = TOKENIZERS["bpe"].train([text], 275, 1, False)
  encoding = tokenizer._tokenizer.encode(text)
  words = np.array(encoding.word_ids)
  starts = word_starts(np.array([encoding.ids]), tokenizer.edge_classes)[0]
  is_word = tokenizer.edge_classes[encoding.ids, 1] > 0
  places = np.flatnonzero(is_word)  # a space alone is in no word here
  firsts = places[np.searchsorted(words[places], words[places])]
  np.testing.assert_array_equal(starts[places], firsts)
  assert (np.bincount(words) > 2).any()


def test_prefixes_are_read_at_once_and_the_rest_counts():
  batch = batches(make("prefix_lm", seq_len=6), rows=3000)[0]
  text = ShuffledSequences(Numbers(), 6, 3000)[0]
  for field in ("inputs", "targets"):
    np.testing.assert_array_equal(batch[field], text[field])
  lengths = batch["bidirectional"].sum(axis=1)
  expected = np.arange(6) < lengths[:, None]
  np.testing.assert_array_equal(batch["bidirectional"], expected)
  np.testing.assert_array_equal(batch["weights"].sum(axis=1), 7 - lengths)
  assert not (batch["weights"][:, :-1] * batch["bidirectional"][:, 1:]).any()
  counts = np.bincount(lengths, minlength=7)[1:]
  assert_frequencies(counts, np.full(6, 1 / 6))


def test_marks_and_middles_put_together_are_the_text():
  options = {"objective.fim_rate": 0.6, "objective.spm_rate": 0.3}
  objective = make("fill_in_the_middle", **options)
  batch = batches(objective, rows=3000)[0]
  tokens = np.concatenate([batch["inputs"], batch["targets"][:, -1:]], axis=1)
  np.testing.assert_array_equal(batch["inputs"][:, 1:], tokens[:, 1:-1])
  rewritten = (tokens == 260).any(axis=1)
  number = rewritten.sum()
  assert_frequencies([number, 3000 - number], [0.6, 0.4])
  orders = []
  for row, weights in zip(
    tokens[rewritten], batch["weights"][rewritten], strict=True
  ):
    p, s, m, e = (np.flatnonzero(row == x)[0] for x in (260, 261, 262, EOS))
    prefix, suffix, middle = row[p + 1 : s], row[s + 1 : m], row[m + 1 : e]
    orders.append(s == p + 1)  # then the prefix is before the middle
    inside = np.concatenate([prefix, middle, suffix])
    assert not np.isin(inside[1:] - 4, Numbers().starts).any()
    text = np.concatenate([row[:p], inside, row[e + 1 :]])
    np.testing.assert_array_equal(np.diff(text), 1)  # nothing lost or twice
    np.testing.assert_array_equal(
      np.isin(row[1:], range(260, 263)), weights == 0
    )
  assert 0.2 < np.mean(orders) < 0.5  # SPM, and PSM with nothing before the cut
  plain = tokens[~rewritten]
  np.testing.assert_array_equal(np.diff(plain), 1)


def test_middles_have_even_cuts_in_the_right_order():
  """In one document, without marks before: every pair of cuts as often."""
  options = {"objective.fim_rate": 1.0, "objective.spm_rate": 0.0}
  objective = make("fill_in_the_middle", seq_len=7, **options)
  stream = Numbers(8, (0,))
  batch = batches(objective, stream=stream, rows=4000)[0]
  tokens = np.concatenate([batch["inputs"], batch["targets"][:, -1:]], axis=1)
  assert (tokens[:, 0] == 260).all() and (tokens[:, -1] == EOS).all()
  prefix, middle = (np.argmax(tokens == x, axis=1) for x in (261, 262))
  low, high = prefix - 1, prefix - 1 + (7 - middle - 1)
  text = np.arange(4, 8)
  for row, i, j in zip(tokens[:50], low, high, strict=False):
    expected = [260, *text[:i], 261, *text[j:], 262, *text[i:j], EOS]
    np.testing.assert_array_equal(row, expected)
  counts = [
    ((low == i) & (high == j)).sum() for i in range(5) for j in range(i, 5)
  ]
  shares = [(1 + (i < j)) / 25 for i in range(5) for j in range(i, 5)]
  assert_frequencies(counts, shares)


def test_documents_begin_at_their_first_mark():
  options = {"objective.fim_rate": 1.0, "data.reset_at_documents": True}
  batch = batches(make("fill_in_the_middle", **options), rows=400)[0]
  moved = 0
  for row, resets in zip(batch["inputs"], batch["resets"], strict=True):
    begins = np.isin(row - 4, Numbers().starts)
    (first,), ends = np.flatnonzero(row == 260), np.flatnonzero(row == EOS)
    inside = slice(first, ends[0] + 1 if len(ends) else None)
    assert resets[first] == begins[inside].any()  # of the document inside
    moved += resets[first]
    resets, begins = resets.copy(), begins.copy()
    resets[inside] = begins[inside] = False
    np.testing.assert_array_equal(resets, begins)
  assert 0 < moved < 400


def test_memory_is_emptied_at_marks_and_at_the_eos_before_a_text():
  """Never between a mark and the <eos> that ends its middle."""
  stream = Numbers(starts=(0, 7, 12, 23, 30, 48, 90))
  tokens = stream.tokens.copy()
  stream.reset_positions = np.maximum(stream.starts - 1, 0)
  tokens[stream.reset_positions[1:]] = EOS
  stream = type("Ended", (Numbers,), {"tokens": tokens})(starts=stream.starts)
  stream.reset_positions = np.maximum(stream.starts - 1, 0)
  options = {"objective.fim_rate": 1.0, "data.reset_at_documents": True}
  objective = make("fill_in_the_middle", **options)
  read = batches(objective, stream=stream, rows=400, reset_at_documents=True)
  batch, seen = read[0], 0
  for row, resets in zip(batch["inputs"], batch["resets"], strict=True):
    marks = np.flatnonzero(row >= 260)
    if not len(marks):
      continue
    ends = marks[-1] + np.flatnonzero(row[marks[-1] :] == EOS)
    end = ends[0] if len(ends) else len(row)
    if np.array_equal(ends[:2], [end, end + 1]):  # of the text, of the middle
      end += 1
    assert not resets[marks[0] + 1 : end].any()
    outside = np.ones(len(row), bool)
    outside[marks[0] : end + 1] = False
    assert resets[outside & (row == EOS)].all()
    assert not resets[outside & (row != EOS)][1:].any()
    if end + 1 < len(row):  # the next document follows
      assert resets[end]
      seen += 1
  assert seen > 20


@pytest.mark.parametrize("seq_len", [3, 4, 13, 512])
def test_sources_with_their_targets_are_the_text(seq_len):
  objective = make("span_corruption", seq_len)
  stream = Numbers(4 * objective.seq_len + 1, (0,))
  tokenizer = ByteTokenizer().with_special_tokens(objective.special_tokens)
  first_mark, num_spans = tokenizer.base_vocab_size, objective.sizes.spans
  rows = ShuffledSequences(stream, objective.seq_len, 5)
  text = np.where(rows[0]["inputs"] < 260, 0, 1000) + rows[0]["inputs"]
  read = dict(rows[0], inputs=text)  # no token is like a mark
  batch = objective.rewrite(read, keys(5), tokenizer)
  assert batch["sources"].shape[1] == seq_len
  assert batch["weights"].all() and batch["source_mask"].all()
  np.testing.assert_array_equal(batch["inputs"][:, 0], BOS)
  np.testing.assert_array_equal(
    batch["inputs"][:, 1:], batch["targets"][:, :-1]
  )
  for row, sources, targets in zip(
    text, batch["sources"], batch["targets"], strict=True
  ):
    assert sources[-1] == targets[-1] == EOS
    answers, back = {}, []
    for token in targets[:-1]:
      if first_mark <= token < first_mark + num_spans:
        answers[token] = answer = []
      else:
        answer.append(token)
    assert sorted(answers) == list(range(first_mark, first_mark + num_spans))
    assert list(answers) == sorted(answers) and all(answers.values())
    for token in sources[:-1]:
      back += answers.get(token, [token])
    assert back == row.tolist()


def test_all_divisions_are_alike():
  counts = {}
  for parts in divide(uniform(keys(3000), 4), 3).tolist():
    assert sum(parts) == 5
    counts[tuple(parts)] = counts.get(tuple(parts), 0) + 1
  assert min(min(parts) for parts in counts) == 1 and len(counts) == 6
  assert_frequencies(list(counts.values()), np.full(6, 1 / 6))


def test_spans_are_as_many_and_as_long_as_asked():
  assert fit(512, 0.15, 3.0) == (568, 85, 28)  # T5's
  assert fit(512, 0.15, 3.0).targets == 114
  for length in range(3, 200):
    sizes = fit(length, 0.15, 3.0)
    assert sizes.sources == length
    if length > 30:
      np.testing.assert_allclose(sizes.hidden / sizes.text, 0.15, atol=0.02)
      np.testing.assert_allclose(sizes.hidden / sizes.spans, 3.0, atol=0.6)


@pytest.mark.parametrize(
  ("task", "options", "message"),
  [
    ("span_corruption", {"data.seq_len": 1}, "data.seq_len=1 has no room"),
    ("span_corruption", {"objective.mask_rate": 0.9}, "a lower rate"),
    (
      "span_corruption",
      {"data.reset_at_documents": True},
      "is not read by task=span_corruption",
    ),
    ("fill_in_the_middle", {"data.seq_len": 3}, "must be at least 4"),
  ],
)
def test_what_leaves_no_room_is_a_sentence(task, options, message):
  with pytest.raises(UsageError, match=message):
    make(task, **options)
