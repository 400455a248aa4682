# SPDX-License-Identifier: Apache-2.0
"""UTF-8 bytes as tokens."""

from collections.abc import Iterable

import numpy as np

from lmjax.data.tokenizers.tokenizer import SPECIALS, Tokenizer

_OFFSET = len(SPECIALS)  # token of byte 0


class ByteTokenizer(Tokenizer):
  """A lossless tokenizer of UTF-8 bytes; byte b is token b + 4.

  >>> ByteTokenizer().encode("né")
  [114, 199, 173]
  """

  kind, unit = "byte", "byte"

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "ByteTokenizer":
    """Build the tokenizer, which does not depend on texts."""
    del texts, vocab_size, min_freq, lower_case
    return cls()

  @property
  def base_vocab_size(self) -> int:
    """See Tokenizer."""
    return _OFFSET + 256

  def encode(self, text: str) -> np.ndarray:
    """See Tokenizer."""
    # Lone surrogates, which strict UTF-8 rejects, occur in scraped text.
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    return data.astype(np.int32) + _OFFSET

  def _decode(self, tokens: list[int]) -> str:
    """Decode tokens to text, with U+FFFD for invalid UTF-8."""
    data = bytes(token - _OFFSET for token in tokens if token >= _OFFSET)
    return data.decode("utf-8", errors="replace")

  def names(self) -> list[str]:
    """Return names of the form <0x0A>."""
    digits = (f"<0x{byte:02X}>" for byte in range(256))
    return [*SPECIALS, *digits, *self.special_tokens]

  def _token_bytes(self, token: int) -> bytes:
    return bytes([token - _OFFSET])

  def _edge_classes(self, token: int) -> tuple[int, int]:
    inside = int(not self._token_bytes(token).isspace())
    return inside, inside

  def to_json(self) -> dict:
    """Return no arguments: all byte tokenizers are equal."""
    return {}
