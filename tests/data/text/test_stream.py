# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.data.text.stream import open_stream
from lmjax.data.tokenizers import ByteTokenizer, CharacterTokenizer

EOS = ByteTokenizer.eos_id


class Documents(list):
  fingerprint = "f"


class Unreadable(Documents):
  """A source that must not be read again."""

  def __getitem__(self, index):
    raise AssertionError("the corpus was read again")


TEXTS = ["one\n", "", "three"]


def test_tokens_and_document_starts(tmp_path):
  tokenizer = ByteTokenizer()
  stream = open_stream(Documents(TEXTS), tokenizer, tmp_path, True)
  assert stream.num_documents == 3 and stream.num_tokens == 12
  np.testing.assert_array_equal(stream.starts, [0, 5, 6])
  assert [stream.tokens[i] for i in (4, 5, 11)] == [EOS] * 3
  assert tokenizer.decode(stream.tokens) == "one\nthree"
  np.testing.assert_array_equal(
    stream.reset_positions, [0, 4, 5]
  )  # at their <eos>
  plain = open_stream(Documents(TEXTS), tokenizer, tmp_path, False)
  assert plain.num_tokens == 9
  np.testing.assert_array_equal(plain.reset_positions, plain.starts)


def test_a_corpus_is_encoded_once(tmp_path):
  tokenizer = ByteTokenizer()
  first = open_stream(Documents(TEXTS), tokenizer, tmp_path, True)
  again = open_stream(Unreadable(TEXTS), tokenizer, tmp_path, True)
  np.testing.assert_array_equal(first.tokens, again.tokens)
  with pytest.raises(AssertionError, match="read again"):
    changed = Unreadable(TEXTS)
    changed.fingerprint = "g"
    open_stream(changed, tokenizer, tmp_path, True)


def test_another_tokenizer_is_another_stream(tmp_path):
  for tokenizer in (
    CharacterTokenizer.train(TEXTS, 0, 1, False),
    CharacterTokenizer.train(["xyz"], 0, 1, False),
  ):
    stream = open_stream(Documents(TEXTS), tokenizer, tmp_path, True)
    assert stream.tokens.max() < tokenizer.vocab_size


def test_a_stream_that_was_cut_off_is_made_again(tmp_path):
  class CutOff(Documents):
    def __getitem__(self, index):
      if index == 2:
        raise KeyboardInterrupt
      return super().__getitem__(index)

  tokenizer = ByteTokenizer()
  with pytest.raises(KeyboardInterrupt):
    open_stream(CutOff(TEXTS), tokenizer, tmp_path, True)
  again = open_stream(Documents(TEXTS), tokenizer, tmp_path, True)
  assert again.num_tokens == 12
  assert tokenizer.decode(again.tokens) == "one\nthree"


def test_opening_reads_no_tokens(tmp_path):
  """Only the description is read; the tokens may even be gone."""
  tokenizer = ByteTokenizer()
  stream = open_stream(Documents(TEXTS), tokenizer, tmp_path, True)
  (stream.folder / "tokens.bin").unlink()
  opened = open_stream(Unreadable(TEXTS), tokenizer, tmp_path, True)
  assert opened.num_tokens == 12
  with pytest.raises(FileNotFoundError):
    opened.tokens  # noqa: B018
