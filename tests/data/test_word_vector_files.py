# SPDX-License-Identifier: Apache-2.0
"""Files of word vectors: round trips, other programs' files and errors."""

import gzip

import numpy as np
import pytest

from lmjax.data.word_vectors import FORMATS, name_in_file, read, write
from lmjax.errors import UsageError, UserError

WORDS = ["the", "ünï", "</s>", "3", "\N{SNOWMAN}", "a\tb", "\u2028", "12"]
VECTORS = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
VECTORS[0] = [1e-30, -3e38, 0.1, 1 / 3, 0.0]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("format", FORMATS)
def test_read_inverts_write_to_the_same_bits(format, ending, tmp_path):
  suffix = ".bin" if format == "word2vec_binary" else ".txt"
  path = tmp_path / f"vectors{suffix}{ending}"
  write(path, WORDS, VECTORS, format)
  assert (path.read_bytes()[:2] == b"\x1f\x8b") == bool(ending)
  for asked in (format, "auto"):
    words, vectors = read(path, asked)
    assert words == WORDS
    np.testing.assert_array_equal(vectors, VECTORS)
  words, vectors = read(path, wanted={"3", "the", "not there"})
  assert words == ["the", "3"]
  np.testing.assert_array_equal(vectors, VECTORS[[0, 3]])


def test_reads_files_of_word2vec_glove_and_gensim(tmp_path):
  """As word2vec.c writes, with a space at the end of a line; GloVe; gensim."""
  expected = np.array([[0.5, -2.0], [1e-3, 4.0]], np.float32)
  raw = [row.tobytes() for row in expected]
  files = {
    "a.txt": b"2 2\n</s> 0.500000 -2.000000 \nword 0.001000 4.000000 \n",
    "b.txt": b"</s> 0.5 -2.0\r\nword 1e-3 4\r\n",
    "c.bin": b"2 2\n</s> " + raw[0] + b"\nword " + raw[1] + b"\n",
    "d.bin": b"2 2\n</s> " + raw[0] + b"word " + raw[1],
  }
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
    words, vectors = read(tmp_path / name)
    assert words == ["</s>", "word"]
    np.testing.assert_array_equal(vectors, expected, err_msg=name)


def test_words_may_contain_spaces_and_repeat(tmp_path):
  """As in glove.840B.300d."""
  path = tmp_path / "g.txt"
  path.write_text("a 1 2\n. . 3 4\na 5 6\n")
  words, vectors = read(path)
  assert words == ["a", ". ."]
  np.testing.assert_array_equal(vectors, [[1, 2], [3, 4]])


good = b"1 2\nword \0\0\0\0\0\0\0\0"
nan = np.array([0.0, np.nan], np.float32).tobytes()


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    (
      "g.txt",
      b"a 1 2\nb 3\n",
      "line 2: expected a word and 2 numbers, found 1 n",
    ),
    ("g.txt", b"a 1 2\nb 3 4 5\n", "line 2: .* found 3 numbers"),
    ("g.txt", b"a 1 2\n\nb 3 4\n", "line 2: .* found 0 numbers"),
    ("g.txt", b"a 1 2\nb 3 x\n", "line 2: 'x' is not a number"),
    ("g.txt", b"a 1 2\nb 3 inf\n", "line 2: a number is not finite"),
    ("g.txt", b"word\n", "line 1: expected a word and some numbers"),
    ("g.txt", b"", "contains no word vectors"),
    ("w.txt", b"3 2\na 1 2\nb 3 4\n", "line 3: the file ends; .* 3 words"),
    ("w.txt", b"1 2\na 1 2\nb 3 4\n", "line 3: line 1 announces only 1 words"),
    ("w.bin", b"a 1 2\n", "line 1: expected two integers"),
    ("w.bin", b"1 99999999999999\na", "line 1: expected .* check the format"),
    ("w.txt", b"1 " + b"9" * 22 + b"\na 1", "line 1: expected two integers"),
    ("w.bin", good[:-1], "word 1: the file ends in it"),
    ("w.bin", good + b"more", "word 1: more data after"),
    ("w.bin", b"1 2\nword " + nan, "word 1: a number is not finite"),
    ("w.txt.gz", b"not compressed", "cannot be read: Not a gzipped file"),
    (
      "w.txt.gz",
      gzip.compress(b"a 1 2\n" * 99, mtime=0)[:-9],
      "cannot be read",
    ),
  ],
)
def test_malformed_file_raises_with_its_line(name, content, message, tmp_path):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(UserError, match=f"{name}.*{message}"):
    read(path)


def test_word_truncated_within_a_character_is_read(tmp_path):
  path = tmp_path / "g.txt"
  path.write_bytes(b"a 1 2\n\xe4\xb8 3 4\nb 5 6\n")
  assert read(path).words == ["a", "\ufffd", "b"]
  assert read(path, wanted={"b"}).vectors_VD.tolist() == [[5, 6]]


def test_auto_format_depends_on_the_file_name(tmp_path):
  vectors = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
  for name in ("v.bin", "v.bin.gz", "v.txt"):
    write(tmp_path / name, ["a", "b"], vectors, "auto")
    np.testing.assert_array_equal(read(tmp_path / name).vectors_VD, vectors)
  for name, format in (("w.bin", "glove"), ("w.txt", "word2vec_binary")):
    with pytest.raises(UsageError, match="would be read as another"):
      write(tmp_path / name, ["a", "b"], vectors, format)
    assert not (tmp_path / name).exists()


def test_missing_file_invalid_words_and_format_raise(tmp_path):
  with pytest.raises(UserError, match="nope.txt cannot be read: No such file"):
    read(tmp_path / "nope.txt")
  for word in ("", "a b", "a\nb"):
    with pytest.raises(UserError, match="cannot be written"):
      write(tmp_path / "new.txt", [word], np.zeros((1, 2)), "glove")
  assert not (tmp_path / "new.txt").exists()
  with pytest.raises(UsageError, match="choose one of word2vec, word2vec_bin"):
    read(__file__, "gensim")


def test_white_space_tokens_have_names_in_files(tmp_path):
  names = [name_in_file(token) for token in ("\n", " ", "the")]
  write(tmp_path / "v.txt", names, np.eye(3), "word2vec")
  assert read(tmp_path / "v.txt").words == ["</s>", "\u2581", "the"]
