# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: mappings from text to token ids and back.

To add one, subclass Tokenizer in a file of its own and add it to TOKENIZERS
under its `kind`.
"""

from lmjax.data.tokenizers.bpe import BPETokenizer
from lmjax.data.tokenizers.byte import ByteTokenizer
from lmjax.data.tokenizers.character import CharacterTokenizer
from lmjax.data.tokenizers.splitting import split_text
from lmjax.data.tokenizers.tokenizer import MASK, SPECIALS, Tokenizer
from lmjax.data.tokenizers.vocabulary import VocabularyTokenizer
from lmjax.data.tokenizers.word import WordPunctuationTokenizer, WordTokenizer

__all__ = [
  "MASK",
  "SPECIALS",
  "TOKENIZERS",
  "BPETokenizer",
  "ByteTokenizer",
  "CharacterTokenizer",
  "Tokenizer",
  "VocabularyTokenizer",
  "WordPunctuationTokenizer",
  "WordTokenizer",
  "from_record",
  "split_text",
]

TOKENIZERS = {
  "byte": ByteTokenizer,
  "character": CharacterTokenizer,
  "word": WordTokenizer,
  "word_punctuation": WordPunctuationTokenizer,
  "bpe": BPETokenizer,
}


def from_record(record: dict) -> Tokenizer:
  """Build a tokenizer from its record.

  >>> from_record({"kind": "byte", "special_tokens": ["<mask>"]}).vocab_size
  261

  Args:
    record: Tokenizer.record.

  Raises:
    KeyError: if the record has no kind, or an unknown one.
    TypeError: if other keys are not those of the kind.
  """
  arguments = dict(record)
  kind = TOKENIZERS[arguments.pop("kind")]
  special_tokens = arguments.pop("special_tokens", [])
  make = BPETokenizer.from_json if kind is BPETokenizer else kind
  return make(**arguments).with_special_tokens(special_tokens)
