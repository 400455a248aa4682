# SPDX-License-Identifier: Apache-2.0
"""Text that grows: no half characters, no stop strings, nothing taken back."""

import numpy as np
import pytest

from lmjax.data.tokenizers import ByteTokenizer
from lmjax.errors import UsageError
from lmjax.generation.detokenizer import (
  StreamingDetokenizer,
  truncate_at_stop_string,
)
from lmjax.generation.results import GeneratedChunk

EOS = ByteTokenizer.eos_id

TEXT = "Fußgänger: 三国演义, naïve 🦜 END of it."


def stream(text, size, stop_strings=()):
  """Push a text some bytes at a time; return the stream and what was new."""
  tokens = ByteTokenizer().encode(text).tolist()
  grown, parts = StreamingDetokenizer(ByteTokenizer(), stop_strings), []
  for start in range(0, len(tokens), size):
    piece = tokens[start : start + size]
    finish_reason = "length" if start + size >= len(tokens) else ""
    parts.append(
      grown.push(GeneratedChunk(piece, [-1.0] * len(piece), finish_reason))
    )
  return grown, parts


@pytest.mark.parametrize("size", [1, 2, 3, 7, 99])
def test_parts_are_the_text_without_half_characters(size):
  grown, parts = stream(TEXT, size)
  assert "".join(parts) == grown.text == TEXT
  assert not any("\ufffd" in part for part in parts)
  assert grown.finish_reason == "length"
  assert len(grown.tokens) == len(grown.log_probs) == len(TEXT.encode())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 99])
@pytest.mark.parametrize(
  ("stop_strings", "kept"),
  [
    (("END",), "Fußgänger: 三国演义, naïve 🦜 "),
    (("END", "演义"), "Fußgänger: 三国"),
    (("ENDLESS",), TEXT),
    ((" it.", "it"), "Fußgänger: 三国演义, naïve 🦜 END of "),
  ],
)
def test_no_part_of_a_stop_string_is_shown(size, stop_strings, kept):
  grown, parts = stream(TEXT, size, stop_strings)
  assert "".join(parts) == grown.text == kept
  assert grown.finish_reason == ("stop" if kept != TEXT else "length")


@pytest.mark.parametrize("size", [1, 2, 5, 99])
def test_tokens_end_with_the_stop_string(size):
  """However many come at a time; the string's last token is the last."""
  grown, _ = stream("ab 中cd; bcd", size, ["cd; b", "d", "zzz"])
  assert grown.text == "ab 中c" and grown.finish_reason == "stop"
  assert grown.tokens == ByteTokenizer().encode("ab 中cd").tolist()
  assert len(grown.log_probs) == len(grown.tokens)


def test_complete_sequences_are_truncated_at_stop_strings():
  tokens = [*ByteTokenizer().encode("abcdef").tolist(), EOS]
  piece = GeneratedChunk(tokens, [*range(7)], "stop")
  truncated = truncate_at_stop_string(ByteTokenizer(), piece, ["cd"])
  assert truncated == GeneratedChunk(tokens[:4], [0, 1, 2, 3], "stop", [])
  whole = GeneratedChunk(tokens[4:], [1, 2, 3], "stop")
  assert truncate_at_stop_string(ByteTokenizer(), whole, ["cd"]) == whole


def test_an_empty_stop_string_is_refused():
  with pytest.raises(UsageError, match="must not be empty"):
    StreamingDetokenizer(ByteTokenizer(), ["a", ""])


def test_what_is_broken_at_the_end_is_shown_as_it_is():
  grown = StreamingDetokenizer(ByteTokenizer())
  half = ByteTokenizer().encode("é")[:1].tolist()
  assert grown.push(GeneratedChunk(half, [-1.0], "")) == ""
  assert grown.push(GeneratedChunk([], [], "length")) == "\ufffd"


def test_the_end_of_a_document_is_no_text():
  grown = StreamingDetokenizer(ByteTokenizer())
  tokens = [*ByteTokenizer().encode("ab").tolist(), EOS]
  assert grown.push(GeneratedChunk(tokens, [-1.0, -2.0, -3.0], "stop")) == "ab"
  assert grown.finish_reason == "stop" and grown.log_probs == [-1.0, -2.0]
  assert grown.push(GeneratedChunk(np.array([70]).tolist(), [-1.0], "")) == ""
