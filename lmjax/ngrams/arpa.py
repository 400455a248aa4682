# SPDX-License-Identifier: Apache-2.0
r"""Back-off models as ARPA files, which most n-gram programs read and write.

    \data\
    ngram 1=5
    ngram 2=7

    \1-grams:
    -1.20412	the	-0.30103
    ...

    \end\

Logarithms are to base 10, -99 is that of zero, and a weight of 0 is
omitted. Words are separated by white space, so a white-space character within
a token is written as \u and four hexadecimal digits, and so are backslash and
NUL: the tokens " " and "\n" become \u0020 and \u000a. The tokens <bos> and
<eos> have the names that the format gives them, <s> and </s>. A token that
looks like one of these two is written with \u003c for its first character.
"""

import contextlib
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lmjax.errors import UserError
from lmjax.ngrams.backoff import Backoff
from lmjax.ngrams.grams import spell, trie

_NAMES = {"<bos>": "<s>", "<eos>": "</s>"}
_SPECIAL = re.compile(r"[\s\0\\]|\A<(?=/?s>\Z)")
_LOG_ZERO = -99.0  # to base 10, and anything below
_LINES = 1 << 16  # read or written at a time


def write(path: Path, orders: Sequence[Backoff], tokens: Sequence[str]) -> None:
  """Write a model, with seven significant digits.

  The file is there whole or not at all.

  Args:
    path: the file, compressed if it ends in .gz.
    orders: the model.
    tokens: the string of each token, all different and none empty.

  Raises:
    UserError: if the file cannot be written.
  """
  names = [_name(token) for token in tokens]
  with _open_to_write(path) as file:
    file.write(b"\\data\\\n")
    for k, level in enumerate(orders, 1):
      file.write(b"ngram %d=%d\n" % (k, len(level.grams)))
    for k, level in enumerate(orders, 1):
      file.write(b"\n\\%d-grams:\n" % k)
      for low in range(0, len(level.grams), _LINES):
        high = min(low + _LINES, len(level.grams))
        file.write(_encode(_entries(orders[:k], low, high, names)))
    file.write(b"\n\\end\\\n")


def read(path: Path, tokens: Sequence[str]) -> list[Backoff]:
  """Read a model that any program wrote.

  Pruned models may lack the parent or the suffix of a gram. Such grams are
  added with the probability that backing off gives them, so that all scores
  stay as they are. Tokens that the file lacks have probability zero, and so has
  `<s>` where it has probability one, as KenLM writes it.

  Args:
    path: the file, compressed if it ends in .gz.
    tokens: the string of each token, all different and none empty.

  Raises:
    UserError: naming the line, if it is no ARPA file or has a word that is none
      of the tokens.
  """
  names = [_name(token) for token in tokens]
  # A word may also be a token as it is: others write a backslash plainly.
  ids = {_encode(token): i for i, token in enumerate(tokens)}
  ids |= {_encode(name): i for i, name in enumerate(names)}
  with _open_to_read(path) as file:
    sections = _Reader(path, file, ids).sections()
  if b"<s>" in ids:
    rows, log_probs, _ = sections[0]
    certain = (rows[:, 0] == ids[b"<s>"]) & (log_probs == 0)
    log_probs[certain] = -np.inf
  return _link(sections, names, path)


class _Section(NamedTuple):
  """The n-grams of one order k, as they are in a file.

  Attributes:
    rows: their tokens, int32 [N, k].
    log_probs: natural logarithms, float64 [N].
    log_weights: natural logarithms, float64 [N].
  """

  rows: np.ndarray
  log_probs: np.ndarray
  log_weights: np.ndarray


class _Reader:
  """An ARPA file, read from front to back.

  Args:
    path: its name, for errors.
    file: its content.
    ids: the token of each word.
  """

  def __init__(self, path: Path, file: BinaryIO, ids: Mapping[bytes, int]):
    self._path, self._file, self._ids = path, file, ids
    self._number = 0  # of the line that was read last

  def sections(self) -> list[_Section]:
    """Read the grams of all orders."""
    while self._line("\\data\\") != b"\\data\\":
      pass
    sections, sizes = [], []
    line = self._line("ngram 1=")
    while match := re.fullmatch(rb"ngram\s+(\d+)\s*=\s*(\d+)", line):
      if int(match[1]) != len(sizes) + 1:
        break
      sizes.append(int(match[2]))
      line = self._line("\\1-grams:")
    if not sizes:
      raise self._error("ngram 1=", line)
    for k, size in enumerate(sizes, 1):
      if line != b"\\%d-grams:" % k:
        raise self._error(f"\\{k}-grams:", line)
      chunks = [
        self._entries(min(_LINES, size - low), k)
        for low in range(0, max(size, 1), _LINES)
      ]
      sections.append(_Section(*map(np.concatenate, zip(*chunks, strict=True))))
      line = self._line(f"\\{k + 1}-grams:" if k < len(sizes) else "\\end\\")
    if line != b"\\end\\":
      raise self._error("\\end\\", line)
    return sections

  def _line(self, wanted: str) -> bytes:
    """Read the next line that is not blank."""
    for line in self._file:
      self._number += 1
      if line.strip():
        return line.strip()
    raise self._error(wanted, None)

  def _entries(self, size: int, k: int) -> _Section:
    """Read so many lines with a gram each."""
    lines = list(itertools.islice(self._file, size))
    try:
      section = self._parse(lines, k)
    except (KeyError, ValueError):
      section = None
    if section is None or len(lines) < size:
      raise self._entry_error(lines, k)
    self._number += size
    return section

  def _parse(self, lines: Sequence[bytes], k: int) -> _Section:
    """Read lines, or raise a KeyError or ValueError that names none of them."""
    fields = [line.split() for line in lines]
    if not all(k + 1 <= len(field) <= k + 2 for field in fields):
      raise ValueError
    words = itertools.chain.from_iterable(field[1 : k + 1] for field in fields)
    rows = np.fromiter(map(self._ids.__getitem__, words), np.int32)
    log_probs = _from_base_10([float(field[0]) for field in fields])
    log_weights = _from_base_10(
      [float(field[-1]) if len(field) > k + 1 else 0.0 for field in fields]
    )
    if not (log_probs <= 0).all() or not (log_weights < np.inf).all():
      raise ValueError
    return _Section(rows.reshape(-1, k), log_probs, log_weights)

  def _entry_error(self, lines: Sequence[bytes], k: int) -> UserError:
    """Say which line has no gram of order k."""
    wanted = f"the logarithm of a probability and the words of a {k}-gram"
    for line in lines:
      self._number += 1
      try:
        self._parse([line], k)
      except KeyError as error:
        word = error.args[0].decode("utf-8", "replace")
        return UserError(
          f"{self._path}, line {self._number}: the word {word} is not in the "
          "vocabulary; give the tokens that the model was made of."
        )
      except ValueError:
        return self._error(wanted, line.strip())
    return self._error(wanted, None)

  def _error(self, wanted: str, found: bytes | None) -> UserError:
    """Return the error of an unexpected line."""
    if found is None:
      return UserError(
        f"{self._path} ends after line {self._number}, where {wanted} must "
        "follow."
      )
    text = found.decode("utf-8", "replace")
    return UserError(
      f'{self._path}, line {self._number}: expected {wanted}, found "{text}".'
    )


def _link(
  sections: Sequence[_Section], names: Sequence[str], path: Path
) -> list[Backoff]:
  """Sort the grams, and add those that others need.

  Args:
    sections: the grams of each order.
    names: the word of each token.
    path: the file that they come from.
  """
  orders, places = trie([section.rows for section in sections], len(names))
  model = []
  for grams, place, section in zip(orders, places, sections, strict=True):
    twice = np.flatnonzero(np.bincount(place) > 1)
    if len(twice):
      row = spell(orders[: len(model) + 1], twice[0], twice[0] + 1)[0]
      gram = " ".join(names[i] for i in row)
      raise UserError(
        f'{path} has the gram "{gram}" twice; remove one of them.'
      )
    if model:
      log_probs = model[-1].log_probs[grams.suffixes]
      log_probs += grams.of_parents(model[-1].log_weights)
    else:
      log_probs = np.full(len(grams), -np.inf)
    log_weights = np.zeros(len(grams))
    log_probs[place] = section.log_probs
    log_weights[place] = section.log_weights
    model.append(Backoff(grams, log_probs, log_weights))
  return model


def _entries(
  orders: Sequence[Backoff], low: int, high: int, names: Sequence[str]
) -> str:
  """Write the lines of grams `low` to `high` of the last of `orders`."""
  level, grams = orders[-1], [shorter.grams for shorter in orders]
  columns = spell(grams, low, high).T.tolist()
  words = zip(*([names[i] for i in column] for column in columns), strict=True)
  return "".join(
    f"{p:.7g}\t{text}\t{w:.7g}\n" if w else f"{p:.7g}\t{text}\n"
    for p, text, w in zip(
      _to_base_10(level.log_probs[low:high]),
      map(" ".join, words),
      _to_base_10(level.log_weights[low:high]),
      strict=True,
    )
  )


def _name(token: str) -> str:
  """Return the word of a token."""
  return _NAMES.get(token) or _SPECIAL.sub(
    lambda match: f"\\u{ord(match[0]):04x}", token
  )


def _encode(word: str) -> bytes:
  return word.encode("utf-8", "surrogatepass")


def _to_base_10(logs: np.ndarray) -> list[float]:
  """Turn natural logarithms into what is written."""
  return np.maximum(logs / np.log(10), _LOG_ZERO).tolist()


def _from_base_10(logs: Sequence[float]) -> np.ndarray:
  """Turn what is written into natural logarithms."""
  logs = np.array(logs, np.float64)
  return np.where(logs <= _LOG_ZERO, -np.inf, logs * np.log(10))


@contextlib.contextmanager
def _open_to_read(path: Path) -> Iterator[BinaryIO]:
  """Open a file, compressed if its name says so."""
  try:
    with open(path, "rb") as file:
      if path.suffix == ".gz":  # buffered: lines are found faster
        file = io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 20)
      yield file
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f"{path} cannot be read: {error}.") from error


@contextlib.contextmanager
def _open_to_write(path: Path) -> Iterator[BinaryIO]:
  """Open what takes the place of a file once it is written to its end."""
  partial = path.with_name(f"{path.name}.partial")
  try:
    with open(partial, "wb") as file:
      if path.suffix == ".gz":
        with gzip.GzipFile(path.stem, "wb", 6, file, mtime=0) as compressed:
          yield compressed
      else:
        yield file
    partial.replace(path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error}.") from error
  finally:
    with contextlib.suppress(OSError):
      partial.unlink()
