# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: text to integers and back.

In all of them the first four integers are `<pad>`, `<unk>`, `<bos>` and
`<eos>`, and only `<unk>` is ever the token of a text. After the vocabulary
there may be further special tokens that some objectives insert, which no text
is encoded to.
"""

import collections
import copy
import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers as hf

from lmjax.data.sources.text_sources import digest
from lmjax.errors import UserError

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
MASK = "<mask>"
_SPLIT = re.compile(r"(?<=\S)\n(?=\S)")


def split_text(text: str, size: int = 1 << 20) -> Iterator[str]:
  """Split a long text where the tokenization of both parts is independent.

  This is after a single newline between two characters other than white space.
  """
  start = 0
  while len(text) - start > size:
    split = _SPLIT.search(text, start + size)
    if not split:
      break
    yield text[start : split.end()]
    start = split.end()
  yield text[start:]


class Tokenizer:
  """Text to integers and back.

  Attributes:
    unit: what `units` counts: "byte", "character" or "word".
    has_spaces: whether texts have a space between tokens, but not at a line's
      end.
    special_tokens: names of the special tokens after the vocabulary.
    pad_id: token of padding.
    unk_id: token of text that is not in the vocabulary.
    bos_id: token before a target sequence.
    eos_id: token after a document or a sequence.
    mask_id: token of `<mask>`; only if it is one of `special_tokens`.
  """

  kind: str
  unit: str
  # The order of SPECIALS, in which the subclasses of this file build their
  # vocabularies. Other code reads the attributes, so that a tokenizer may have
  # its special tokens anywhere in the vocabulary.
  pad_id, unk_id, bos_id, eos_id = range(4)
  has_spaces = False
  special_tokens: tuple[str, ...] = ()

  @property
  def vocab_size(self) -> int:
    """Number of tokens, including special tokens."""
    return self.base_vocab_size + len(self.special_tokens)

  @property
  def base_vocab_size(self) -> int:
    """Number of tokens without the special tokens after the vocabulary."""
    raise TypeError("use a subclass")

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
    """Token of `<mask>`, which hides a token from a masked language model."""
    return self.extra(MASK)

  @property
  def non_text_ids(self) -> tuple[int, ...]:
    """Tokens that are never text, except `<eos>`, which ends one."""
    special = range(self.base_vocab_size, self.vocab_size)
    return (self.pad_id, self.unk_id, self.bos_id, *special)

  def with_special_tokens(self, names: Sequence[str]) -> "Tokenizer":
    """Return the same tokenizer with these special tokens."""
    other = copy.copy(self)
    other.special_tokens = tuple(names)
    return other

  def extra(self, name: str) -> int:
    """Return the token of a special token's name."""
    return self.base_vocab_size + self.special_tokens.index(name)

  def encode(self, text: str) -> np.ndarray:
    """Turn text into int32 tokens [T]."""
    raise TypeError("use a subclass")

  def decode(self, tokens: Sequence[int]) -> str:
    """Turn tokens into text, leaving `<pad>`, `<bos>` and `<eos>` out.

    Extras show by their names.
    """
    text, plain = [], []
    for token in map(int, tokens):
      if token < self.base_vocab_size:
        plain.append(token)
      else:
        text += [
          self._decode(plain),
          self.special_tokens[token - self.base_vocab_size],
        ]
        plain = []
    return "".join([*text, self._decode(plain)])

  def normalize(self, text: str) -> str:
    """Return a text as `decode` writes it, with unknown tokens as they are."""
    return text

  def gap(self, prompt: str, text: str) -> str:
    """Return the separator between a prompt and its continuation."""
    meet = prompt and text and not prompt[-1].isspace() and text[0] != "\n"
    return " " if self.has_spaces and meet else ""

  def _decode(self, tokens: list[int]) -> str:
    """Turn tokens without extras into text."""
    raise TypeError("use a subclass")

  def names(self) -> list[str]:
    """Return the string of each token, all different, [V]."""
    raise TypeError("use a subclass")

  def spellings(self) -> list[bytes]:
    """Return the UTF-8 that each token adds to a text, [V].

    They are empty for special tokens.
    """
    spellings = [b""] * self.vocab_size
    for token in self.text_ids.tolist():
      spellings[token] = self._spell(token)
    return spellings

  def _spell(self, token: int) -> bytes:
    """Return the UTF-8 of a token."""
    raise TypeError("use a subclass")

  def units(self) -> np.ndarray:
    """Return the number of units of each token, float32 [V]; see `unit`."""
    units = np.ones(self.vocab_size, np.float32)
    units[[self.pad_id, self.bos_id, self.eos_id]] = 0.0
    units[self.base_vocab_size :] = 0.0
    return units

  @functools.cached_property
  def edges(self) -> np.ndarray:
    """Class the first and last character of tokens, int8 [base_vocab_size, 2].

    0 is white space or no text. A token continues the word of the token before
    it if the two adjacent characters have the same
    class, and that is not 0.
    """
    edges = np.zeros((self.base_vocab_size, 2), np.int8)
    for token in self.text_ids.tolist():
      edges[token] = self._edges(token)
    return edges

  def _edges(self, token: int) -> tuple[int, int]:
    """Class the first and the last character of a token."""
    raise TypeError("use a subclass")

  def to_json(self) -> dict:
    """Return all that is needed to build the same tokenizer, but extras."""
    raise TypeError("use a subclass")

  @property
  def _record(self) -> dict:
    special_tokens = (
      {"special_tokens": list(self.special_tokens)}
      if self.special_tokens
      else {}
    )
    return {**self.to_json(), **special_tokens}

  @property
  def record(self) -> dict:
    """Return what `restore` makes the same tokenizer of."""
    return {"kind": self.kind, **self._record}

  @property
  def fingerprint(self) -> str:
    """Digest of the tokenizer."""
    return digest(json.dumps(self._record).encode())

  def save(self, path: Path) -> None:
    """Write the tokenizer to a file that `load` reads."""
    text = json.dumps(self.record, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


class ByteTokenizer(Tokenizer):
  """UTF-8 bytes, after the special tokens; lossless."""

  kind, unit = "byte", "byte"

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "ByteTokenizer":
    """Build the tokenizer; there is nothing to learn."""
    del texts, vocab_size, min_freq, lower_case
    return cls()

  @property
  def base_vocab_size(self) -> int:
    """Number of tokens without the special tokens after the vocabulary."""
    return len(SPECIALS) + 256

  def encode(self, text: str) -> np.ndarray:
    """Turn text into int32 tokens [T]."""
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    return data.astype(np.int32) + len(SPECIALS)

  def _decode(self, tokens: list[int]) -> str:
    """Turn tokens into text; broken UTF-8 shows as U+FFFD."""
    offset = len(SPECIALS)
    data = bytes(token - offset for token in tokens if token >= offset)
    return data.decode("utf-8", errors="replace")

  def names(self) -> list[str]:
    """Name bytes by their hexadecimal digits: <0x0A>."""
    digits = (f"<0x{byte:02X}>" for byte in range(256))
    return [*SPECIALS, *digits, *self.special_tokens]

  def _spell(self, token: int) -> bytes:
    """Return the byte."""
    return bytes([token - len(SPECIALS)])

  def _edges(self, token: int) -> tuple[int, int]:
    """Divide bytes by white space."""
    inside = int(not bytes([token - len(SPECIALS)]).isspace())
    return inside, inside

  def to_json(self) -> dict:
    """Return nothing: all byte tokenizers are alike."""
    return {}


class Vocabulary(Tokenizer):
  """A tokenizer over a list of distinct strings."""

  def __init__(self, tokens: Sequence[str], lower_case: bool):
    self.tokens = list(tokens)
    self.lower_case = lower_case
    self._ids = {token: index for index, token in enumerate(self.tokens)}
    # A word "<eos>" in a text is unknown, not the end of the document.
    for special in (self.pad_id, self.bos_id, self.eos_id):
      del self._ids[self.tokens[special]]

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "Vocabulary":
    """Collect the most frequent tokens.

    Args:
      texts: documents.
      vocab_size: how many tokens at most, specials counted; 0 for no limit.
      min_freq: how often a token must occur.
      lower_case: whether text is lower-cased first.
    """
    counts = collections.Counter()
    for text in texts:
      for piece in split_text(text):
        cls.count(counts, piece.lower() if lower_case else piece)
    return cls.most_frequent(counts, vocab_size, min_freq, lower_case)

  @classmethod
  def most_frequent(
    cls,
    counts: collections.Counter,
    vocab_size: int,
    min_freq: int,
    lower_case: bool,
  ) -> "Vocabulary":
    """Keep the most frequent of tokens that are counted; see `train`."""
    for special in SPECIALS:
      counts.pop(special, None)
    room = vocab_size - len(SPECIALS) if vocab_size else len(counts)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [token for token, n in frequent[: max(room, 0)] if n >= min_freq]
    return cls([*SPECIALS, *kept], lower_case)

  @staticmethod
  def count(counts: collections.Counter, text: str) -> None:
    """Add the tokens of a text to `counts`."""
    raise TypeError("use a subclass")

  @property
  def base_vocab_size(self) -> int:
    """Number of tokens without the special tokens after the vocabulary."""
    return len(self.tokens)

  def normalize(self, text: str) -> str:
    """Lower-case a text, if all are."""
    return text.lower() if self.lower_case else text

  def look_up(self, tokens: Sequence[str]) -> np.ndarray:
    """Turn texts that are divided already into int32 tokens [T]."""
    if self.lower_case:
      tokens = [token.lower() for token in tokens]
    ids = [self._ids.get(token, self.unk_id) for token in tokens]
    return np.array(ids, np.int32)

  def names(self) -> list[str]:
    """Return the strings themselves."""
    return [*self.tokens, *self.special_tokens]

  def _spell(self, token: int) -> bytes:
    """Encode the string."""
    return self.tokens[token].encode("utf-8", "surrogatepass")

  def to_json(self) -> dict:
    """Return the list of tokens."""
    return {"tokens": self.tokens, "lower_case": self.lower_case}


class CharacterTokenizer(Vocabulary):
  """Unicode characters that occur in the training text."""

  kind, unit = "character", "character"

  def __init__(self, tokens: Sequence[str], lower_case: bool):
    super().__init__(tokens, lower_case)
    self._by_code_point = np.full(0x110000, self.unk_id, np.int32)
    for index, token in enumerate(self.tokens[len(SPECIALS) :], len(SPECIALS)):
      if len(token) == 1:  # in lower case some characters are two
        self._by_code_point[ord(token)] = index

  @staticmethod
  def count(counts: collections.Counter, text: str) -> None:
    """Add the characters of a text to `counts`."""
    counts.update(text)

  def encode(self, text: str) -> np.ndarray:
    """Turn text into int32 tokens [T]."""
    text = text.lower() if self.lower_case else text
    data = text.encode("utf-32-le", "surrogatepass")
    return self._by_code_point[np.frombuffer(data, np.uint32)]

  def _decode(self, tokens: list[int]) -> str:
    """Turn tokens into text; `<unk>` shows as U+FFFD."""
    shown = ["", "\N{REPLACEMENT CHARACTER}", "", "", *self.tokens[4:]]
    return "".join(shown[token] for token in tokens)

  def _edges(self, token: int) -> tuple[int, int]:
    """Divide characters by white space."""
    inside = int(not self.tokens[token].isspace())
    return inside, inside


class WordTokenizer(Vocabulary):
  """Words between white space; a line's end is a token of its own."""

  kind, unit, has_spaces = "word", "word", True

  _PATTERN = re.compile(r"\n|[^\s]+")

  @classmethod
  def count(cls, counts: collections.Counter, text: str) -> None:
    """Add the words of a text to `counts`."""
    counts.update(cls._PATTERN.findall(text))

  def encode(self, text: str) -> np.ndarray:
    """Turn text into int32 tokens [T]."""
    text = text.lower() if self.lower_case else text
    words = self._PATTERN.findall(text)
    ids = [self._ids.get(word, self.unk_id) for word in words]
    return np.array(ids, np.int32)

  def decode(self, tokens: Sequence[int]) -> str:
    """Turn tokens into words with single spaces between them."""
    names = self.names()
    skipped = (self.pad_id, self.bos_id, self.eos_id)
    return self._join(names[i] for i in tokens if i not in skipped)

  def normalize(self, text: str) -> str:
    """Put single spaces between tokens, known or not."""
    return self._join(self._PATTERN.findall(super().normalize(text)))

  @staticmethod
  def _join(words: Iterable[str]) -> str:
    return re.sub(r" ?\n ?", "\n", " ".join(words))

  def _edges(self, token: int) -> tuple[int, int]:
    """Return classes by which every token starts a word."""
    del token
    return 0, 0


class WordPunctuationTokenizer(WordTokenizer):
  """Words and punctuation, each mark a token, and newlines.

  >>> tokenizer.encode("it's a list, or `()`.")  # by name
  ["it's", "a", "list", ",", "or", "`", "(", ")", "`", "."]
  """

  kind = "word_punctuation"

  _PATTERN = re.compile(r"\n|\w+(?:['’]\w+)*|[^\w\s]")


class BPETokenizer(Tokenizer):
  """Byte-level byte-pair encoding (Sennrich et al. 2016); loses nothing.

  Trained and run by the Hugging Face tokenizers library, with the splitting
  rule of GPT-2.
  """

  kind, unit = "bpe", "byte"

  def __init__(self, tokenizer: hf.Tokenizer):
    self._tokenizer = tokenizer
    self._tokenizer.encode_special_tokens = True  # text is never a special

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "BPETokenizer":
    """Learn merges until there are `vocab_size` tokens.

    Args:
      texts: documents.
      vocab_size: number of tokens, specials counted.
      min_freq: how often a pair must occur to be merged.
      lower_case: whether text is lower-cased first.
    """
    smallest = len(SPECIALS) + 256
    if vocab_size < smallest:
      raise UserError(
        f"data.vocab_size={vocab_size} must be at least {smallest} for "
        "data.tokenizer=bpe: one token a byte and the specials."
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
      initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    parts = (piece for text in texts for piece in split_text(text))
    tokenizer.train_from_iterator(parts, trainer)
    return cls(tokenizer)

  @property
  def base_vocab_size(self) -> int:
    """Number of tokens without the special tokens after the vocabulary."""
    return self._tokenizer.get_vocab_size()

  def encode(self, text: str) -> np.ndarray:
    """Turn text into int32 tokens [T]."""
    return np.array(self._tokenizer.encode(text).ids, np.int32)

  def normalize(self, text: str) -> str:
    """Lower-case a text, if all are."""
    return self.decode(self.encode(text).tolist())

  def _decode(self, tokens: list[int]) -> str:
    """Turn tokens into text; broken UTF-8 shows as U+FFFD."""
    return self._tokenizer.decode(tokens)

  def _spell(self, token: int) -> bytes:
    """Turn the characters of a name into bytes."""
    return bytes(map(_BYTES.get, self._tokenizer.id_to_token(token)))

  def names(self) -> list[str]:
    """Name tokens as GPT-2 does, one character a byte: Ġthe."""
    names = map(self._tokenizer.id_to_token, range(self.base_vocab_size))
    return [*names, *self.special_tokens]

  def units(self) -> np.ndarray:
    """Return the number of bytes of each token, float32 [V]."""
    units = np.array([len(name) for name in self.names()], np.float32)
    units[list(self.special_ids)] = 0.0
    units[self.base_vocab_size :] = 0.0
    return units

  def _edges(self, token: int) -> tuple[int, int]:
    """Divide as GPT-2 does: white space, letters, digits and the rest.

    The bytes of an incomplete character count as letters.
    """
    text = self._tokenizer.decode([token])
    return _class(text[0]), _class(text[-1])

  def to_json(self) -> dict:
    """Return the library's own description."""
    return {"tokenizer": json.loads(self._tokenizer.to_str())}


def _bytes_by_character() -> dict[str, int]:
  """Return the bytes of GPT-2's printable characters for them."""
  seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  unseen = [byte for byte in range(256) if byte not in seen]
  moved = {chr(0x100 + index): byte for index, byte in enumerate(unseen)}
  return {chr(byte): byte for byte in seen} | moved


_BYTES = _bytes_by_character()


def _class(character: str) -> int:
  if character.isspace():
    return 0
  if character.isalpha() or character == "\N{REPLACEMENT CHARACTER}":
    return 1
  return 2 if character.isnumeric() else 3


TOKENIZERS = {
  "byte": ByteTokenizer,
  "character": CharacterTokenizer,
  "word": WordTokenizer,
  "word_punctuation": WordPunctuationTokenizer,
  "bpe": BPETokenizer,
}


def restore(record: dict) -> Tokenizer:
  """Make a tokenizer of its record."""
  record = dict(record)
  kind, special_tokens = (
    TOKENIZERS[record.pop("kind")],
    record.pop("special_tokens", []),
  )
  if kind is BPETokenizer:
    text = json.dumps(record["tokenizer"])
    tokenizer = BPETokenizer(hf.Tokenizer.from_str(text))
  else:
    tokenizer = kind(**record)
  return tokenizer.with_special_tokens(special_tokens)
