# SPDX-License-Identifier: Apache-2.0
import gzip
import itertools

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.ngrams import arpa, smoothing
from lmjax.ngrams.backoff import score
from lmjax.ngrams.counting import count

# Tokens that need care: white space, the format's own names, its escapes.
TOKENS = ["<pad>", "<unk>", "<bos>", "<eos>", " ", "\n", "\u3000é", "\0", "\\"]
TOKENS += ["\\u0020", "\\data\\", "<s>", "</s>", "%", "\ud800", "a"]
V = len(TOKENS)
TEXT = np.random.default_rng(0).integers(1, V, 90)


@pytest.fixture(scope="module")
def model():
  return smoothing.modified_kneser_ney(count(TEXT, 3, V), excluded=[0, 2])


def assert_equal(model, expected):
  for level, other in zip(model, expected, strict=True):
    for field in ("words", "starts", "suffixes"):
      array, wanted = getattr(level.grams, field), getattr(other.grams, field)
      assert array.dtype == wanted.dtype == np.int32
      np.testing.assert_array_equal(array, wanted)
    # Seven digits of any logarithm to base 10.
    for field in ("log_probs", "log_weights"):
      array, wanted = getattr(level, field), getattr(other, field)
      np.testing.assert_allclose(array, wanted, rtol=5.01e-7)


@pytest.mark.parametrize("lines_at_a_time", [7, 1 << 16])
@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_what_was_written_is_read(
  model, tmp_path, name, lines_at_a_time, monkeypatch
):
  monkeypatch.setattr(arpa, "_LINES", lines_at_a_time)
  path, again = tmp_path / name, tmp_path / f"again.{name}"
  arpa.write(path, model, TOKENS)
  found = arpa.read(path, TOKENS)
  assert_equal(found, model)
  arpa.write(again, found, TOKENS)
  opener = gzip.open if name.endswith(".gz") else open
  with opener(path, "rb") as first, opener(again, "rb") as second:
    assert first.read() == second.read()


def test_probability_zero_is_written(tmp_path):
  model = smoothing.maximum_likelihood(count(TEXT, 2, V))
  arpa.write(tmp_path / "model.arpa", model, TOKENS)
  assert_equal(arpa.read(tmp_path / "model.arpa", TOKENS), model)


PRUNED = r"""Made by hand: no parent of b c a, no suffix of a b c.

\data\
ngram 1=5
ngram 2 = 2
ngram 3=2

\1-grams:
-99 <s> -0.5
-1.0 a -0.25
-0.5 \ -0.125
-0.75 c
-2e0 </s>

\2-grams:
-0.25 a \ -0.75
-0.625 <s> a -0.0625

\3-grams:
-0.375 \ c a
-0.5 a \ c

\end\
"""


def entries(text):
  """Return the grams of a file in this test's own reading."""
  lines = [line.split() for line in text.splitlines()]
  tables = {}
  for k in (1, 2, 3):
    for line in lines:
      if len(line) in (k + 1, k + 2) and line[0][0] == "-":
        words = [word for word in line[1:] if word[0] != "-"]
        if len(words) == k:
          weight = float(line[-1]) if len(line) == k + 2 else 0.0
          tables[tuple(words)] = float(line[0]), weight
  return tables


def by_hand(tables, context, word):
  weight = 0.0
  while (*context, word) not in tables:
    weight += tables.get(context, (0.0, 0.0))[1]
    context = context[1:]
  return weight + tables[*context, word][0]


def test_a_pruned_file_is_completed_and_scores_as_before(tmp_path):
  path = tmp_path / "pruned.arpa"
  path.write_text(PRUNED)
  tokens = ["<pad>", "<bos>", "<eos>", "c", "a", "\\"]
  words = ["", "<s>", "</s>", "c", "a", "\\"]
  model = arpa.read(path, tokens)
  grams = [level.grams for level in model]
  assert [len(level) for level in grams] == [6, 4, 2]
  assert model[0].log_probs[0] == model[0].log_probs[1] == -np.inf
  tables = entries(PRUNED)
  for text in itertools.product(range(1, 6), repeat=3):
    found = score(model, np.array(text))[-1]
    if text[-1] != 1:
      *context, word = (words[token] for token in text)
      expected = by_hand(tables, tuple(context), word) * np.log(10)
      assert abs(found - expected) < 1e-12


def test_the_beginning_of_a_sentence_has_no_probability(tmp_path):
  path = tmp_path / "model.arpa"
  path.write_text(PRUNED.replace("-99 <s>", "0 <s>"))
  (first, *_) = arpa.read(path, ["<bos>", "<eos>", "a", "\\", "c"])
  assert (
    first.log_probs[0] == -np.inf and np.isfinite(first.log_probs[1:]).all()
  )


@pytest.mark.parametrize(
  "old, new, message",
  [
    ("\\data\\", "data", r" ends after line 23, where \\data\\ must"),
    ("ngram 1=5", "1=5", r', line 4: expected ngram 1=, found "1=5"'),
    ("ngram 2 = 2\n", "", r', line 5: expected \\1-grams:, found "ngram 3=2"'),
    (
      "ngram 1=5",
      "ngram 1=6",
      r', line 14: expected .* of a 1-gram, found ""',
    ),
    (
      "ngram 2 = 2",
      "ngram 2=1",
      r', line 17: expected \\3-grams:, found "-0.6',
    ),
    (
      "\\2-grams:",
      "\\4-grams:",
      r', line 15: expected \\2-grams:, found "\\4-',
    ),
    ("-0.375 \\ c a", "-0.375 \\ c", r", line 20: .* of a 3-gram, found"),
    ("-0.25 a", "x a", r', line 16: .* of a 2-gram, found "x a'),
    ("-0.25 a", "nan a", r", line 16: .* of a 2-gram, found .nan a"),
    ("-0.25 a", "0.25 a", r", line 16: .* of a 2-gram, found .0.25 a"),
    ("-0.25 a", "-0.25 z", r", line 16: the word z is not in the vocabulary"),
    ("-0.625 <s> a", "-0.1 a \\", r' has the gram "a \\u005c" twice'),
    ("\n\\end\\", "", r" ends after line 22, where \\end\\ must"),
    ("-0.5 a \\ c\n\n\\end\\\n", "", r" ends after line 20, where .* a 3-gram"),
  ],
)
def test_an_error_names_the_line(tmp_path, old, new, message):
  assert PRUNED.count(old) == 1
  path = tmp_path / "bad.arpa"
  path.write_text(PRUNED.replace(old, new))
  with pytest.raises(UserError, match=f"bad.arpa{message}"):
    arpa.read(path, ["<bos>", "<eos>", "a", "\\", "c"])


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_a_file_is_written_whole_or_not_at_all(
  model, tmp_path, name, monkeypatch
):
  def interrupt(*_):
    assert list(tmp_path.iterdir())
    raise KeyboardInterrupt

  monkeypatch.setattr(arpa, "_entries", interrupt)
  with pytest.raises(KeyboardInterrupt):
    arpa.write(tmp_path / name, model, TOKENS)
  assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_or_broken_is_an_error(tmp_path, model):
  with pytest.raises(UserError, match="cannot be read"):
    arpa.read(tmp_path / "none.arpa", TOKENS)
  with pytest.raises(UserError, match="cannot be written"):
    arpa.write(tmp_path / "none" / "model.arpa", model, TOKENS)
  path = tmp_path / "model.arpa.gz"
  arpa.write(path, model, TOKENS)
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(UserError, match="cannot be read"):
    arpa.read(path, TOKENS)
