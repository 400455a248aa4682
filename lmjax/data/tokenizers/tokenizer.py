# SPDX-License-Identifier: Apache-2.0
"""The interface of tokenizers, and its common methods."""

import copy
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lmjax.data.sources.text_sources import digest

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
MASK = "<mask>"


class Tokenizer:
  """A mapping from text to token ids and back; the base class.

  A vocabulary of `base_vocab_size` tokens contains text and the four special
  tokens `<pad>`, `<unk>`, `<bos>` and `<eos>`. Of these, `encode` returns only
  `<unk>`. After the vocabulary come the special tokens that a task inserts,
  such as `<mask>`, which `encode` never returns.

  Attributes:
    kind: key of lmjax.data.tokenizers.TOKENIZERS.
    unit: what `units` counts: "byte", "character" or "word".
    has_spaces: whether decoding puts a space between tokens, except at
      newlines.
    special_tokens: names of the special tokens after the vocabulary.
    pad_id: token of padding.
    unk_id: token of text that is not in the vocabulary.
    bos_id: token before a target sequence.
    eos_id: token after a document or a sequence.
  """

  kind: str
  unit: str
  # The order of SPECIALS, in which the subclasses in this package build their
  # vocabularies. Other code reads the attributes, so that a tokenizer may have
  # its special tokens anywhere in the vocabulary.
  pad_id, unk_id, bos_id, eos_id = range(4)
  has_spaces = False
  special_tokens: tuple[str, ...] = ()

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "Tokenizer":
    """Build a tokenizer from texts.

    Args:
      texts: documents.
      vocab_size: maximum number of tokens, including `<pad>`, `<unk>`, `<bos>`
        and `<eos>`; 0 for no limit.
      min_freq: minimum number of occurrences of a token.
      lower_case: whether text is lower-cased first.
    """
    raise NotImplementedError

  @property
  def vocab_size(self) -> int:
    """Number of tokens V, including all special tokens."""
    return self.base_vocab_size + len(self.special_tokens)

  @property
  def base_vocab_size(self) -> int:
    """Number of tokens without the special tokens after the vocabulary."""
    raise NotImplementedError

  @property
  def special_ids(self) -> tuple[int, int, int, int]:
    """Special tokens within the vocabulary: pad, unk, bos and eos."""
    return self.pad_id, self.unk_id, self.bos_id, self.eos_id

  @functools.cached_property
  def text_ids(self) -> np.ndarray:
    """Tokens of text, ascending, without `<unk>`, int32 [N]."""
    base_V = np.arange(self.base_vocab_size, dtype=np.int32)
    return np.setdiff1d(base_V, self.special_ids)

  @property
  def mask_id(self) -> int:
    """Token of `<mask>`, which hides a token from a masked language model.

    Raises:
      ValueError: if `<mask>` is not one of `special_tokens`.
    """
    return self.special_token_id(MASK)

  @property
  def non_text_ids(self) -> tuple[int, ...]:
    """Tokens that are never text, except `<eos>`, which ends one."""
    special = range(self.base_vocab_size, self.vocab_size)
    return (self.pad_id, self.unk_id, self.bos_id, *special)

  def with_special_tokens(self, names: Sequence[str]) -> "Tokenizer":
    """Return a copy with these special tokens after the vocabulary.

    >>> ByteTokenizer().with_special_tokens(["<mask>"]).mask_id
    260
    """
    other = copy.copy(self)
    other.special_tokens = tuple(names)
    return other

  def special_token_id(self, name: str) -> int:
    """Return the token of a name in `special_tokens`.

    Raises:
      ValueError: if there is no such name.
    """
    return self.base_vocab_size + self.special_tokens.index(name)

  def encode(self, text: str) -> np.ndarray:
    """Encode a text as int32 tokens [T]."""
    raise NotImplementedError

  def decode(self, tokens: Sequence[int]) -> str:
    """Decode tokens to text.

    `<pad>`, `<bos>` and `<eos>` are skipped; special tokens after the
    vocabulary are decoded to their names.
    """
    text, pending = [], []
    for token in map(int, tokens):
      if token < self.base_vocab_size:
        # Bytes of one character may be several tokens, so runs of tokens are
        # decoded together.
        pending.append(token)
      else:
        name = self.special_tokens[token - self.base_vocab_size]
        text += [self._decode(pending), name]
        pending = []
    return "".join([*text, self._decode(pending)])

  def normalize(self, text: str) -> str:
    """Return a text as `decode` writes it, but without `<unk>`."""
    return text

  def separator(self, prompt: str, text: str) -> str:
    """Return the separator between a prompt and its continuation.

    >>> words.separator("a", "list"), words.separator("a ", "list")
    (" ", "")
    """
    are_words = prompt and text and not prompt[-1].isspace() and text[0] != "\n"
    return " " if self.has_spaces and are_words else ""

  def _decode(self, tokens: list[int]) -> str:
    """Decode tokens of the vocabulary to text."""
    raise NotImplementedError

  def names(self) -> list[str]:
    """Return the distinct names of the tokens, [V]."""
    raise NotImplementedError

  def token_bytes(self) -> list[bytes]:
    """Return the UTF-8 bytes of each token, [V].

    They are empty for special tokens, which are not text. A separator between
    tokens is not included.
    """
    token_bytes = [b""] * self.vocab_size
    for token in self.text_ids.tolist():
      token_bytes[token] = self._token_bytes(token)
    return token_bytes

  def _token_bytes(self, token: int) -> bytes:
    """Return the UTF-8 bytes of a token of text."""
    raise NotImplementedError

  def units(self) -> np.ndarray:
    """Return the number of units of each token, float32 [V]; see `unit`.

    A loss per unit, such as bits per byte, divides by their sum.
    """
    units = np.ones(self.vocab_size, np.float32)
    units[[self.pad_id, self.bos_id, self.eos_id]] = 0.0
    units[self.base_vocab_size :] = 0.0
    return units

  @functools.cached_property
  def edge_classes(self) -> np.ndarray:
    """Classes of the first and last character, int8 [base_vocab_size, 2].

    Class 0 is white space and special tokens. A token continues the word of
    the token before it if the adjacent characters have the same class other
    than 0. With GPT-2's classes of letters 1 and others 3:

        "er"  [1, 1]      " cell"  [0, 1]      "."  [3, 3]
    """
    classes = np.zeros((self.base_vocab_size, 2), np.int8)
    for token in self.text_ids.tolist():
      classes[token] = self._edge_classes(token)
    return classes

  def _edge_classes(self, token: int) -> tuple[int, int]:
    """Return the classes of the first and last character of a token."""
    raise NotImplementedError

  def to_json(self) -> dict:
    """Return the constructor's arguments as JSON values."""
    raise NotImplementedError

  @property
  def _record(self) -> dict:
    # Without special tokens the key is absent, so that the fingerprint is that
    # of a tokenizer which never had any.
    if not self.special_tokens:
      return self.to_json()
    return {**self.to_json(), "special_tokens": list(self.special_tokens)}

  @property
  def record(self) -> dict:
    """JSON values from which `from_record` builds an equal tokenizer."""
    return {"kind": self.kind, **self._record}

  @property
  def fingerprint(self) -> str:
    """Digest of the tokenizer."""
    return digest(json.dumps(self._record).encode())

  def save(self, path: Path) -> None:
    """Write the tokenizer to a file; see lmjax.data.vocabularies.load."""
    text = json.dumps(self.record, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
