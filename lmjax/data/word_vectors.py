# SPDX-License-Identifier: Apache-2.0
"""Files of word vectors of word2vec and GloVe, plain or compressed (.gz).

    word2vec          a line "V D", then V lines of a word and D numbers
    word2vec_binary   the same line, then words, a space and D float32 each
    glove             lines of a word and D numbers, without a first line

Words contain no newlines, and in files that lmjax writes no spaces.
"""

import gzip
import re
import zlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from lmjax.errors import UsageError, UserError

_CHUNK = 1 << 20  # bytes of a binary file that are read at a time


class WordVectors(NamedTuple):
  """Words and their vectors.

  Attributes:
    words: the words.
    vectors_VD: float32 [V, D].
  """

  words: list[str]
  vectors_VD: np.ndarray


def name_in_file(token: str) -> str:
  r"""Return the name of a token in files: without newlines and spaces.

  word2vec writes the end of a sentence as "</s>".

  >>> [name_in_file(token) for token in ("the", "\n", " ")]
  ["the", "</s>", "▁"]
  """
  return token.replace("\n", "</s>").replace(" ", "\u2581")


def read(
  path: str | Path, format: str = "auto", wanted: Container[str] | None = None
) -> WordVectors:
  """Read a file of word vectors.

  Args:
    path: the file.
    format: one of FORMATS, or "auto": word2vec_binary if the name ends in .bin
      or .bin.gz, else word2vec if the first line is two integers, else glove.
      Bytes of a word that are not UTF-8 are decoded to "\ufffd".
    wanted: the words to read; None for all. If a word occurs twice, its first
      vector is read.

  Raises:
    UserError: naming the line, or the word of a binary file, that is malformed.
  """
  found, width = {}, 0
  try:
    with _open(path, "rb") as file:
      if format == "auto":
        format = _guess(Path(path), file)
      reader, _ = FORMATS[check_format(format)]
      for name, vector in reader(file):
        # word2vec truncates long words, possibly within a UTF-8 character.
        width, word = len(vector), name.decode("utf-8", "replace")
        if word not in found and (wanted is None or word in wanted):
          found[word] = vector
  except _Malformed as error:
    raise UserError(f"{path}, {error}; correct the file.") from error
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{path} cannot be read: {reason}.") from error
  if not width:
    raise UserError(f"{path} contains no word vectors; give another file.")
  vectors_VD = np.array(list(found.values()), np.float32).reshape(-1, width)
  return WordVectors(list(found), vectors_VD)


def write(
  path: str | Path, words: Iterable[str], vectors_VD: np.ndarray, format: str
) -> None:
  """Write a file of word vectors; `read` returns the same bits.

  Args:
    path: the file; compressed if its name ends in .gz.
    words: V distinct words.
    vectors_VD: their vectors, [V, D].
    format: one of FORMATS, or "auto": word2vec_binary if the name ends in .bin
      or .bin.gz, else word2vec.

  Raises:
    UsageError: if the format and the name of the file contradict each other.
    UserError: if a word is empty or contains a space or a newline.
  """
  is_binary = _is_binary(Path(path))
  if format == "auto":
    format = "word2vec_binary" if is_binary else "word2vec"
  _, writer = FORMATS[check_format(format)]
  if is_binary != (format == "word2vec_binary"):
    raise UsageError(
      f"a file of format={format} named {path} would be read as another "
      "format; only files of word2vec_binary have names in .bin or .bin.gz."
    )
  names = []
  for word in words:
    if not word or " " in word or "\n" in word:
      raise UserError(
        f"the word {word!r} cannot be written to a file of word vectors: it is "
        "empty or contains a space or a newline."
      )
    names.append(word.encode("utf-8", "replace"))
  with _open(path, "wb") as file:
    writer(file, names, np.asarray(vectors_VD, np.float32))


def check_format(format: str) -> str:
  """Return the name of a format, if it is one.

  Raises:
    UsageError: if it is not.
  """
  if format not in FORMATS:
    raise UsageError(
      f"format={format} is not known; choose one of {', '.join(FORMATS)}."
    )
  return format


class _Malformed(Exception):
  """The position and the problem of a malformed entry."""


def _open(path: str | Path, mode: str) -> IO[bytes]:
  opener = gzip.open if str(path).endswith(".gz") else open
  return opener(path, mode)


def _is_binary(path: Path) -> bool:
  return path.name.removesuffix(".gz").endswith(".bin")


def _guess(path: Path, file: IO[bytes]) -> str:
  if _is_binary(path):
    return "word2vec_binary"
  first = file.readline()
  file.seek(0)
  return "word2vec" if re.fullmatch(rb"\d+ \d+\s*", first) else "glove"


# Each reader yields words and their vectors.
_Entries = Iterator[tuple[bytes, np.ndarray]]
# Maximum width of a vector. The first line of another format may be two huge
# numbers, which must not be allocated.
_MAX_WIDTH = 1 << 24


def _read_header(file: IO[bytes]) -> tuple[int, int]:
  match = re.fullmatch(rb"(\d+) (\d+)\s*", file.readline())
  if not match or not 0 < int(match[2]) <= _MAX_WIDTH:
    raise _Malformed(
      'line 1: expected two integers "V D" for V words of D numbers; '
      "check the format"
    )
  return int(match[1]), int(match[2])


def _read_word2vec(file: IO[bytes]) -> _Entries:
  number, width = _read_header(file)
  line = 1
  for line, text in enumerate(file, 2):
    if line > number + 1:
      raise _Malformed(f"line {line}: line 1 announces only {number} words")
    yield _parse(f"line {line}", text, width)
  if line <= number:
    raise _Malformed(
      f"line {line}: the file ends; line 1 announces {number} words"
    )


def _read_glove(file: IO[bytes]) -> _Entries:
  width = 0
  for line, text in enumerate(file, 1):
    width = width or text.rstrip(b" \r\n").count(b" ")
    yield _parse(f"line {line}", text, width)


def _parse(entry: str, text: bytes, width: int) -> tuple[bytes, np.ndarray]:
  """Split a line after its word, which in some files contains spaces."""
  word, *numbers = text.rstrip(b" \r\n").rsplit(b" ", width)
  # Words of some files contain spaces (". ." in glove.840B.300d), so the
  # last `width` fields are the vector. Numbers before them are not part of a
  # word, but of a line with too many.
  found = len(numbers) + sum(map(_is_number, word.split(b" ")[1:]))
  if found != width or not word or not width:
    raise _Malformed(
      f"{entry}: expected a word and {width or 'some'} numbers, found "
      f"{found} numbers"
    )
  try:
    vector = np.fromiter(map(float, numbers), np.float32, width)
  except ValueError:
    odd = next(text for text in numbers if not _is_number(text))
    shown = odd.decode("utf-8", "replace")
    raise _Malformed(f"{entry}: {shown!r} is not a number") from None
  if not np.isfinite(vector).all():
    raise _Malformed(f"{entry}: a number is not finite")
  return word, vector


def _is_number(text: bytes) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _read_binary(file: IO[bytes]) -> _Entries:
  number, width = _read_header(file)
  size, data, start = 4 * width, b"", 0
  for count in range(1, number + 1):
    while (space := data.find(b" ", start)) < 0 or len(data) <= space + size:
      more = file.read(max(size, _CHUNK))
      if not more:
        raise _Malformed(
          f"word {count}: the file ends in it; line 1 announces {number} words"
        )
      # Drop parsed bytes, so that memory does not grow with the file.
      data, start = data[start:] + more, 0
    vector = np.frombuffer(data, "<f4", width, space + 1)
    if not np.isfinite(vector).all():
      raise _Malformed(f"word {count}: a number is not finite")
    # word2vec ends each vector with a newline; other programs do not.
    yield data[start:space].lstrip(b"\n"), vector
    start = space + 1 + size
  if (data[start:] + file.read(2)).strip():
    raise _Malformed(f"word {number}: more data after the last word")


def _write_glove(
  file: IO[bytes], names: list[bytes], vectors_VD: np.ndarray
) -> None:
  for name, vector in zip(names, vectors_VD, strict=True):
    # NumPy's strings of float32 are the shortest that parse to the same bits.
    numbers = " ".join(vector.astype(str)).encode()
    file.write(name + b" " + numbers + b"\n")


def _write_header(file: IO[bytes], vectors_VD: np.ndarray) -> None:
  file.write("{} {}\n".format(*vectors_VD.shape).encode())


def _write_word2vec(
  file: IO[bytes], names: list[bytes], vectors_VD: np.ndarray
) -> None:
  _write_header(file, vectors_VD)
  _write_glove(file, names, vectors_VD)


def _write_binary(
  file: IO[bytes], names: list[bytes], vectors_VD: np.ndarray
) -> None:
  _write_header(file, vectors_VD)
  for name, vector in zip(names, vectors_VD.astype("<f4"), strict=True):
    file.write(name + b" " + vector.tobytes() + b"\n")


FORMATS = {
  "word2vec": (_read_word2vec, _write_word2vec),
  "word2vec_binary": (_read_binary, _write_binary),
  "glove": (_read_glove, _write_glove),
}
