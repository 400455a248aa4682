# SPDX-License-Identifier: Apache-2.0
"""Sources of text: documents by index, in a fixed order."""

import functools
import glob
import gzip
import hashlib
import importlib
import json
import lzma
import mmap
import os
import sysconfig
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lmjax.errors import UserError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text", ".tokens")
JSONL_SUFFIXES = (".jsonl", ".json", ".ndjson")
TSV_SUFFIXES = (".tsv",)
COMPRESSIONS = {".gz": gzip.open, ".xz": lzma.open}


class Source(Protocol):
  """Documents by index.

  Attributes:
    fingerprint: a digest of the text and of its division into documents.
  """

  fingerprint: str

  def __len__(self) -> int:
    """Return the number of documents."""

  def __getitem__(self, index: int) -> str:
    """Return document `index`."""

  def label(self, index: int, by: str) -> str:
    """Return the label of document `index`, the source of its control code.

    Args:
      index: index of the document.
      by: "file" or "folder" for the name of the document's file or directory;
        a field's name where documents are records.

    Raises:
      UserError: if documents have no label of that kind.
    """


class PythonDocs:
  """The language reference in CPython's `help()`, one document per topic."""

  @functools.cached_property
  def _documents(self) -> list[str]:
    topics = importlib.import_module("pydoc_data.topics").topics
    return [topics[name] for name in sorted(topics)]

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the text."""
    return digest("\0".join(self._documents).encode())

  def __len__(self) -> int:
    """Return the number of topics."""
    return len(self._documents)

  def __getitem__(self, index: int) -> str:
    """Return the text of one topic."""
    return self._documents[index]

  def label(self, index: int, by: str) -> str:
    """Raise UserError: topics have no labels."""
    del index
    raise UserError(
      f"objective.control_code_from={by} is not supported by data.source="
      "python_docs; choose another source."
    )


class TextFiles:
  """One document per file, plain or compressed (.gz, .xz), in UTF-8.

  Args:
    paths: the files.
    cache_dir: directory of content digests, by size and modification time, so
      that an unchanged corpus is not read again to verify it.
  """

  def __init__(self, paths: Sequence[Path], cache_dir: Path):
    self._paths = tuple(paths)
    self._cache_dir = cache_dir

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the files' content."""
    return digest_files(self._paths, self._cache_dir)

  def __len__(self) -> int:
    """Return the number of files."""
    return len(self._paths)

  def __getitem__(self, index: int) -> str:
    """Return the text of one file."""
    path = self._paths[index]
    return decode(bytes(read_bytes(path)), str(path))

  def label(self, index: int, by: str) -> str:
    """Return the file's name up to its first dot, or its directory's name."""
    path = self._paths[index]
    names = dict(file=path.name.split(".")[0], folder=path.parent.name)
    if by not in names:
      raise UserError(
        f"objective.control_code_from={by} must be file or folder for text "
        "files."
      )
    return names[by]


class Lines:
  """One document per non-empty line, plain or compressed.

  Args:
    paths: the files.
    field: the part of a line that is the text; its form depends on the
      subclass.
    cache_dir: see TextFiles.
  """

  def __init__(self, paths: Sequence[Path], field: str, cache_dir: Path):
    self._paths = tuple(paths)
    self._field = field
    self._cache_dir = cache_dir

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the files' content and of the field's name."""
    return digest_files(self._paths, self._cache_dir) + self._field

  @functools.cached_property
  def _lines(self) -> np.ndarray:
    """Rows (file, start, stop) of the non-empty lines, int64 [N, 3].

    Only offsets are in memory; `__getitem__` reads a line from the mapped file.
    """
    rows = []
    for file, path in enumerate(self._paths):
      data = read_bytes(path)
      start = 0
      while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        if data[start:end].strip():
          rows.append((file, start, end))
        start = end + 1
    return np.array(rows, np.int64).reshape(-1, 3)

  def __len__(self) -> int:
    """Return the number of documents."""
    return len(self._lines)

  def __getitem__(self, index: int) -> str:
    """Return the text of one line."""
    return self._read(index, self._field, "data.field")

  def label(self, index: int, by: str) -> str:
    """Return another field of the line; see Source."""
    return self._read(index, by, "objective.control_code_from")

  def _read(self, index: int, field: str, key: str) -> str:
    """Return a field of a line; messages name the config key `key`."""
    raise NotImplementedError

  def _line(self, index: int) -> tuple[Path, str]:
    """Return a line and its file."""
    file, start, end = self._lines[index]
    path = self._paths[file]
    return path, decode(bytes(read_bytes(path)[start:end]), str(path))


class JSONLines(Lines):
  """One document per line of JSON; the field is a key."""

  def _read(self, index: int, field: str, key: str) -> str:
    path, line = self._line(index)
    try:
      text = json.loads(line)[field]
    except (json.JSONDecodeError, KeyError, TypeError):
      text = None
    if not isinstance(text, str):
      raise UserError(
        f"{path}: record {index} has no text under {field!r}; set {key} to the "
        "name of the field that holds it."
      )
    # JSON may escape half of a surrogate pair, as in truncated emoji. That is
    # not valid Unicode and cannot be encoded as UTF-8: replace it by U+FFFD.
    data = text.encode("utf-16-le", "surrogatepass")
    return data.decode("utf-16-le", "replace")


class TabSeparated(Lines):
  """One document per line of tab-separated columns; the field is an index.

  Columns are numbered from 0. There is no quoting and no header.
  """

  def _read(self, index: int, field: str, key: str) -> str:
    path, line = self._line(index)
    columns = line.rstrip("\r").split("\t")
    if not field.isdecimal() or int(field) >= len(columns):
      raise UserError(
        f"{path}: record {index} has {len(columns)} columns and none with "
        f"number {field!r}; set {key} to one from 0 to "
        f"{len(columns) - 1}."
      )
    return columns[int(field)]


def python_source_files() -> list[Path]:
  """Return the modules of the standard library, without its tests."""
  root = Path(sysconfig.get_path("stdlib"))
  excluded = {"test", "tests", "idle_test", "site-packages", "__pycache__"}
  return sorted(
    path
    for path in root.rglob("*.py")
    if not excluded & set(path.relative_to(root).parts)
  )


def find_files(pattern: str, suffixes: tuple[str, ...]) -> list[Path]:
  """Expand a file, a directory or a glob pattern into a sorted list of files.

  Args:
    pattern: value of `data.path`.
    suffixes: suffixes of the files of a directory, at any depth, compressed or
      not.

  Raises:
    UserError: if there are none.
  """
  if not pattern:
    raise UserError(
      "data.path is empty; give a file, a directory or a glob pattern."
    )
  root = Path(pattern).expanduser()
  if root.is_dir():
    endings = [s + c for s in suffixes for c in ("", *COMPRESSIONS)]
    found = [p for p in root.rglob("*") if p.name.endswith(tuple(endings))]
    wanted = "a file that ends in one of " + " ".join(suffixes)
  else:
    found = [Path(p) for p in glob.glob(str(root), recursive=True)]
    wanted = "an existing file"
  found = sorted(p.resolve() for p in found if p.is_file())
  if not found:
    raise UserError(f"data.path={pattern} names no file; give {wanted}.")
  return found


@functools.lru_cache(maxsize=1)
def read_bytes(path: Path) -> bytes | mmap.mmap:
  """Return the content of a file; plain files are memory-mapped.

  The last file is cached, since consecutive documents are mostly in one file.
  """
  opener = COMPRESSIONS.get(path.suffix)
  try:
    if opener:
      with opener(path, "rb") as file:
        return file.read()
    # An empty file cannot be mapped.
    if not os.path.getsize(path):
      return b""
    with open(path, "rb") as file:
      return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    raise UserError(f"{path} cannot be read: {error}.") from error


def decode(data: bytes, name: str) -> str:
  """Decode UTF-8.

  Raises:
    UserError: naming the file and the first byte that is not UTF-8.
  """
  try:
    return data.decode("utf-8")
  except UnicodeDecodeError as error:
    raise UserError(
      f"{name} is not UTF-8 at byte {error.start}; convert it, for example "
      "with iconv."
    ) from error


def digest(data: bytes) -> str:
  """Return a digest of bytes, 32 hexadecimal characters."""
  return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_files(paths: Sequence[Path], cache_dir: Path) -> str:
  """Return a digest of the content of files, which `cache_dir` caches."""
  stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
  memo = cache_dir / "fingerprints" / digest(json.dumps(stats).encode())
  if memo.exists():
    return memo.read_text()
  contents = hashlib.blake2b(digest_size=16)
  for path in paths:
    with open(path, "rb") as file:
      contents.update(hashlib.file_digest(file, "blake2b").digest())
  memo.parent.mkdir(parents=True, exist_ok=True)
  # Renamed into place, so that no other process reads half a digest.
  with tempfile.NamedTemporaryFile(
    "w", dir=memo.parent, delete=False
  ) as partial:
    partial.write(contents.hexdigest())
  os.replace(partial.name, memo)
  return contents.hexdigest()
