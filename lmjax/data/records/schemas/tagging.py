# SPDX-License-Identifier: Apache-2.0
"""Tokens and a tag for each.

Dimension letters:

    W  characters of a word
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.records.labels import Labels
from lmjax.data.records.schemas.classification import TrainTokenizer
from lmjax.data.records.schemas.schema import (
  BadRow,
  Example,
  Row,
  UnseenLabel,
  truncate_at_end,
)
from lmjax.data.records.tag_schemes import (
  all_tags,
  divide,
  is_tag,
  spans_of,
  tables_of,
  tags_of,
  words_to_tags,
)
from lmjax.data.tokenizers import (
  CharacterTokenizer,
  Tokenizer,
  VocabularyTokenizer,
  WordTokenizer,
)
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tagging:
  """Tokens and tags to the fields of a batch.

      inputs      int32    words [B, T]; characters if words are to be found
      characters  int32    of each word, [B, T, W], padded with `<pad>`
      bigrams     int32    each token with the next, [B, T]
      mask        bool     true on tokens [B, T]
      targets     int32    tags' numbers [B, T]
      weights     float32  [B, T]

  Tokens are a list of words, or a text with blanks between them, and so are
  tags. To find words, tokens are the characters of either, and tags the words.

  Attributes:
    scheme: one of tag_schemes.SCHEMES; tags of spans are read in any of them
      and learned in this one.
    max_characters: W; 0 for no characters.
    bigrams: whether tokens are also looked up two by two.
    vocab_size: how many tokens are known at most; 0 for no limit.
    min_freq: how often a token must occur to be known; also two in a row.
    lower_case: whether words are lower-cased; their characters never are.
  """

  scheme: str
  max_characters: int
  bigrams: bool
  vocab_size: int
  min_freq: int
  lower_case: bool

  roles = ("tokens", "tags")
  inputs = ("tokens",)
  groups = {"mask": ("inputs", "characters", "bigrams", "targets", "weights")}
  pads = {}
  whole = True

  def learn(
    self, rows: Iterable[Row], known: Mapping[str, Tokenizer]
  ) -> Vocabularies:
    """Collect tokens, characters and tags."""
    tokens, tags, bigrams = (collections.Counter() for _ in range(3))
    for row in rows:
      tokens.update(self.tokens_of(row))
      if self.bigrams:
        bigrams.update(_bigrams(self.tokens_of(row)))
      tags.update(self.tags_of(row))
    options = self.vocab_size, self.min_freq, self.lower_case
    kind = CharacterTokenizer if self.finds_words else WordTokenizer
    characters = CharacterTokenizer.train(tokens, 0, 1, lower_case=False)
    if self.lower_case:
      tokens = _lower_cased(tokens)
    tokenizer = known.get("tokens") or kind.most_frequent(tokens, *options)
    tokenizers = {"tokens": tokenizer, "characters": characters}
    if self.bigrams:
      tokenizers["bigrams"] = WordTokenizer.most_frequent(
        bigrams, 0, self.min_freq, lower_case=False
      )
    return Vocabularies(tokenizers, {"tags": Labels(self._names(tags))})

  def _names(self, tags: collections.Counter) -> list[str]:
    """Return the tags by frequency, then tags that may occur."""
    names = sorted(tags, key=lambda tag: (-tags[tag], tag))
    if self.scheme == "none":
      return names
    kinds = sorted({tag[2:] for tag in tags if "-" in tag})
    possible = all_tags(kinds, self.scheme)
    return [*names, *(tag for tag in possible if tag not in tags)]

  def encode(self, row: Row, vocabularies: Vocabularies) -> Example:
    """Turn a row into an example."""
    tokens, tokenizer = self.tokens_of(row), vocabularies.tokenizers["tokens"]
    of_characters = isinstance(tokenizer, CharacterTokenizer)
    if (
      not isinstance(tokenizer, VocabularyTokenizer)
      or of_characters != self.finds_words
    ):
      unit = "character" if self.finds_words else "word"
      raise UserError(
        f"a {tokenizer.kind} tokenizer has no number for each {unit}, which "
        f"tagging.scheme={self.scheme} needs; warm-start from a run whose "
        f"data.tokenizer is {unit}."
      )
    example = dict(
      inputs=tokenizer.tokens_to_ids(tokens),
      weights=np.ones(len(tokens), np.float32),
    )
    if self.max_characters:
      characters = vocabularies.tokenizers["characters"]
      shape = len(tokens), self.max_characters
      characters_TW = np.full(shape, characters.pad_id, np.int32)
      for row_W, token in zip(characters_TW, tokens, strict=True):
        found = characters.encode(token)[: self.max_characters]
        row_W[: len(found)] = found
      example["characters"] = characters_TW
    if self.bigrams:
      bigrams = vocabularies.tokenizers["bigrams"]
      example["bigrams"] = bigrams.tokens_to_ids(_bigrams(tokens))
    if "tags" in row:
      labels, tags = vocabularies.labels["tags"], self.tags_of(row)
      if len(tags) != len(tokens):
        raise BadRow(f"it has {len(tokens)} tokens and {len(tags)} tags")
      for tag in tags:
        if tag not in labels:
          raise UnseenLabel(tag)
      example["targets"] = np.array([labels[tag] for tag in tags], np.int32)
    return example

  @property
  def finds_words(self) -> bool:
    """Whether tokens are characters."""
    return self.scheme == "segmentation"

  def tokens_of(self, row: Row) -> list[str]:
    """Return what is to be tagged.

    Raises:
      BadRow: if there is nothing.
    """
    tokens = divide(row["tokens"], self.scheme)
    if not tokens:
      raise BadRow("it has no tokens")
    return tokens

  def tags_of(self, row: Row) -> list[str]:
    """Return the tags that a row has, in the scheme that is learned.

    Raises:
      BadRow: naming a tag that belongs to no scheme.
    """
    tags = row["tags"]
    tags = tags.split() if isinstance(tags, str) else tags
    if self.finds_words:
      return words_to_tags(tags)
    if self.scheme == "none":
      return tags
    for tag in tags:
      if not is_tag(tag):
        raise BadRow(f"its tag {tag!r} is neither O nor a B-, I-, E- or S-")
    return tags_of(spans_of(tags), len(tags), self.scheme)

  def truncate(self, example: Example, seq_len: int) -> Example:
    """Truncate texts at the end."""
    return truncate_at_end(example, self.groups, seq_len)

  def blank(self, vocabularies: Vocabularies) -> Example:
    """Return an example of the right shapes, of nothing."""
    example = dict(
      inputs=np.array([vocabularies.tokenizers["tokens"].eos_id], np.int32),
      targets=np.zeros(1, np.int32),
      weights=np.zeros(1, np.float32),
    )
    if self.bigrams:
      example["bigrams"] = np.zeros(1, np.int32)
    if self.max_characters:
      example["characters"] = np.full(
        (1, self.max_characters),
        vocabularies.tokenizers["characters"].pad_id,
        np.int32,
      )
    return example

  def sizes(self, vocabularies: Vocabularies) -> dict[str, int]:
    """Return the numbers of tokens, characters and tags."""
    known = vocabularies.tokenizers
    sizes = dict(
      vocab_size=known["tokens"].vocab_size,
      num_characters=known["characters"].vocab_size,
      character_pad_id=known["characters"].pad_id,
      num_tags=len(vocabularies.labels["tags"]),
    )
    if self.bigrams:
      sizes["num_bigrams"] = known["bigrams"].vocab_size
    return sizes

  def task_inputs(self, vocabularies: Vocabularies) -> dict[str, Any]:
    """Return what tags tell of spans, and what those are called."""
    names = vocabularies.labels["tags"].names
    tables = None if self.scheme == "none" else tables_of(names, self.scheme)
    return dict(tables=tables, unit="word" if self.finds_words else "entity")


def _bigrams(tokens: Sequence[str]) -> list[str]:
  """Join each token with the next, the last with nothing.

  >>> _bigrams(["a", "b", "c"])
  ["a b", "b c", "c "]
  """
  following = [*tokens[1:], ""]
  return [f"{a} {b}" for a, b in zip(tokens, following, strict=True)]


def _lower_cased(counts: collections.Counter) -> collections.Counter:
  lowered = collections.Counter()
  for token, number in counts.items():
    lowered[token.lower()] += number
  return lowered


def build(config: ConfigDict, train_tokenizer: TrainTokenizer) -> Tagging:
  """Make the schema that a config describes."""
  del train_tokenizer  # tokens are there already
  options, data = config.tagging, config.data
  return Tagging(
    options.scheme,
    options.max_characters,
    options.bigram_width > 0,
    data.vocab_size,
    data.min_freq,
    data.lower_case,
  )
