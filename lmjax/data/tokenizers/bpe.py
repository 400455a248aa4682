# SPDX-License-Identifier: Apache-2.0
"""Byte-level byte-pair encoding, by the Hugging Face tokenizers library."""

import json
from collections.abc import Iterable

import numpy as np
import tokenizers as hf

from lmjax.data.tokenizers.splitting import split_text
from lmjax.data.tokenizers.tokenizer import SPECIALS, Tokenizer
from lmjax.errors import UserError


class BPETokenizer(Tokenizer):
  """Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909).

  Text is split by the regular expression of GPT-2 before merging. Encoding is
  lossless, unless text is lower-cased.

  Args:
    tokenizer: a trained tokenizer of the library.
  """

  kind, unit = "bpe", "byte"

  def __init__(self, tokenizer: hf.Tokenizer):
    self._tokenizer = tokenizer
    # Encode a text "<eos>" by its bytes, not as the special token.
    self._tokenizer.encode_special_tokens = True

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "BPETokenizer":
    """Learn merges until there are `vocab_size` tokens; see Tokenizer.

    Args:
      texts: documents.
      vocab_size: number of tokens, including special tokens.
      min_freq: minimum number of occurrences of a pair that is merged.
      lower_case: whether text is lower-cased first.

    Raises:
      UserError: if there is no room for all bytes.
    """
    smallest = len(SPECIALS) + 256
    if vocab_size < smallest:
      raise UserError(
        f"data.vocab_size={vocab_size} must be at least {smallest} for "
        "data.tokenizer=bpe: 256 bytes and 4 special tokens."
      )
    tokenizer = hf.Tokenizer(hf.models.BPE())
    if lower_case:
      tokenizer.normalizer = hf.normalizers.Lowercase()
    byte_level = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
      vocab_size=vocab_size,
      min_frequency=min_freq,
      special_tokens=list(SPECIALS),
      # All bytes are tokens, even those that the training text lacks, so that
      # no text is unknown.
      initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    chunks = (chunk for text in texts for chunk in split_text(text))
    tokenizer.train_from_iterator(chunks, trainer)
    return cls(tokenizer)

  @property
  def base_vocab_size(self) -> int:
    """See Tokenizer."""
    return self._tokenizer.get_vocab_size()

  def encode(self, text: str) -> np.ndarray:
    """See Tokenizer."""
    return np.array(self._tokenizer.encode(text).ids, np.int32)

  def normalize(self, text: str) -> str:
    """Lower-case a text if the tokenizer does."""
    # By a round trip, as the library may lower-case differently from Python.
    return self.decode(self.encode(text).tolist())

  def _decode(self, tokens: list[int]) -> str:
    """Decode tokens to text, with U+FFFD for invalid UTF-8."""
    return self._tokenizer.decode(tokens)

  def _token_bytes(self, token: int) -> bytes:
    return bytes(map(_BYTES.get, self._tokenizer.id_to_token(token)))

  def names(self) -> list[str]:
    """Return names as in GPT-2, one character per byte: Ġthe."""
    names = map(self._tokenizer.id_to_token, range(self.base_vocab_size))
    return [*names, *self.special_tokens]

  def units(self) -> np.ndarray:
    """Return the number of bytes of each token, float32 [V]."""
    # Names have one character per byte.
    units = np.array([len(name) for name in self.names()], np.float32)
    units[list(self.special_ids)] = 0.0
    units[self.base_vocab_size :] = 0.0
    return units

  def _edge_classes(self, token: int) -> tuple[int, int]:
    # The classes of GPT-2's regular expression. Bytes of an incomplete
    # character count as letters.
    text = self._tokenizer.decode([token])
    return _character_class(text[0]), _character_class(text[-1])

  def to_json(self) -> dict:
    """Return the library's own JSON."""
    return {"tokenizer": json.loads(self._tokenizer.to_str())}

  @classmethod
  def from_json(cls, tokenizer: dict) -> "BPETokenizer":
    """Build a tokenizer from the library's own JSON."""
    return cls(hf.Tokenizer.from_str(json.dumps(tokenizer)))


def _bytes_by_character() -> dict[str, int]:
  """Return the byte of each character of GPT-2's byte alphabet.

  Printable bytes other than the space are characters themselves; the others are
  the characters from U+0100, in order: "A" is 0x41, "Ġ" is 0x20.
  """
  printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printable]
  moved = {chr(0x100 + index): byte for index, byte in enumerate(others)}
  return {chr(byte): byte for byte in printable} | moved


_BYTES = _bytes_by_character()


def _character_class(character: str) -> int:
  """Return 0 for white space, 1 for letters, 2 for digits, 3 for others."""
  if character.isspace():
    return 0
  if character.isalpha() or character == "\N{REPLACEMENT CHARACTER}":
    return 1
  return 2 if character.isnumeric() else 3
