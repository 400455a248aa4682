# SPDX-License-Identifier: Apache-2.0
"""All tokens of a corpus in one array on disk, encoded once.

A stream is a folder named by a digest of the corpus, the tokenizer and the
settings: tokens.bin holds the tokens in the smallest unsigned type that fits,
starts.npy the start of each document. The folder is written atomically, and
opening it maps the files without reading them.
"""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import tqdm

from lmjax.data.atomic_dir import write_atomically
from lmjax.data.sources.text_sources import Source, digest
from lmjax.data.tokenizers import Tokenizer, split_text
from lmjax.errors import UsageError

FORMAT = 1  # raise it when the layout of the folder changes
BLOCK = 1 << 20  # tokens that are counted at a time


@dataclasses.dataclass(frozen=True)
class TokenStream:
  """Tokens of a corpus, end to end.

  Attributes:
    folder: where the arrays lie.
    num_tokens: how many tokens there are.
    num_documents: how many documents they come from.
    dtype: name of the integer type on disk.
    ends_in_eos: whether each document ends in `<eos>`.
  """

  folder: Path
  num_tokens: int
  num_documents: int
  dtype: str
  ends_in_eos: bool = False

  @functools.cached_property
  def tokens(self) -> np.ndarray:
    """The tokens, [num_tokens], mapped from disk: pages are read on use."""
    return np.memmap(self.folder / "tokens.bin", self.dtype, "r")

  @functools.cached_property
  def starts(self) -> np.ndarray:
    """The index of each document's first token, int64, mapped from disk."""
    return np.load(self.folder / "starts.npy", mmap_mode="r")

  @functools.cached_property
  def reset_positions(self) -> np.ndarray:
    """Return the tokens before which a state is reset at documents, int64.

    If documents end in `<eos>`, this is the `<eos>` before each document: texts
    start after it in training as in sampling.
    """
    return np.maximum(self.starts - 1, 0) if self.ends_in_eos else self.starts

  def counts(self, vocab_size: int) -> np.ndarray:
    """Return the number of occurrences of each token, int64 [V]."""
    counts_V = np.zeros(vocab_size, np.int64)
    for start in range(0, self.num_tokens, BLOCK):
      block = self.tokens[start : start + BLOCK]
      counts_V += np.bincount(block, minlength=vocab_size)
    return counts_V


def open_stream(
  source: Source,
  tokenizer: Tokenizer,
  cache_dir: Path,
  append_eos: bool,
  control_code_from: str = "",
) -> TokenStream:
  """Open the stream of a corpus, encoding it first if that was never done.

  Args:
    source: the documents.
    tokenizer: turns them into tokens.
    cache_dir: folder that holds streams.
    append_eos: whether each document ends in `<eos>`.
    control_code_from: where the control code of a document comes from; empty
      for none.

  Raises:
    UsageError: if the tokenizer does not have a document's code.
  """
  settings = [FORMAT, source.fingerprint, tokenizer.fingerprint, append_eos]
  settings += [control_code_from] if control_code_from else []
  key = digest(json.dumps(settings).encode())
  folder = cache_dir / "streams" / key
  if not (folder / "stream.json").exists():
    write_atomically(
      folder,
      lambda partial: _encode(
        source, tokenizer, partial, append_eos, control_code_from
      ),
    )
  description = json.loads((folder / "stream.json").read_text())
  return TokenStream(folder, **description, ends_in_eos=append_eos)


def _encode(
  source: Source,
  tokenizer: Tokenizer,
  folder: Path,
  append_eos: bool,
  control_code_from: str,
) -> None:
  dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
  folder.mkdir()
  starts, length = [], 0
  with open(folder / "tokens.bin", "wb") as file:
    bar = tqdm.trange(
      len(source), desc="encode", unit="doc", leave=False, disable=None
    )
    for index in bar:
      starts.append(length)
      if control_code_from:
        code = find_control_code(
          source.label(index, control_code_from), tokenizer
        )
        np.array([code], dtype).tofile(file)
        length += 1
      for piece in split_text(source[index]):
        tokens = tokenizer.encode(piece)
        tokens.astype(dtype).tofile(file)
        length += len(tokens)
      if append_eos:
        np.array([tokenizer.eos_id], dtype).tofile(file)
        length += 1
  np.save(folder / "starts.npy", np.array(starts, np.int64))
  description = dict(
    num_tokens=length, num_documents=len(starts), dtype=dtype.name
  )
  (folder / "stream.json").write_text(json.dumps(description))


def find_control_code(label: str, tokenizer: Tokenizer) -> int:
  """Return the token of a label.

  Raises:
    UsageError: if the training text had no such label.
  """
  name = mark(label)
  if name not in tokenizer.special_tokens:
    known = ", ".join(extra[1:-1] for extra in tokenizer.special_tokens)
    raise UsageError(
      f"{label!r} is no control code of the training text; "
      + (f"choose one of {known}." if known else "it has none: give no code.")
    )
  return tokenizer.special_token_id(name)


def mark(label: str) -> str:
  """Name the token of a label.

  >>> mark("poem")
  "<poem>"
  """
  return f"<{label}>"
