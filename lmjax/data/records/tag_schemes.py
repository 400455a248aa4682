# SPDX-License-Identifier: Apache-2.0
"""Spans of a sequence written as tags, a tag a token.

    tokens        New     York    and  Rome
    bio           B-city  I-city  O    B-city       begins, inside, outside
    bioes         B-city  E-city  O    S-city       and ends, single

Segmentation is the same with spans of no type everywhere: B M E S of the
characters of words, where M is what I is (Xue 2003).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

SCHEMES = ("none", "bio", "bioes", "segmentation")
OUTSIDE = "O"
_PREFIXES = {"bio": "BI", "bioes": "BIES", "segmentation": "BMES"}


class Span(NamedTuple):
  """Tokens `start` to `end` − 1, and what they are."""

  start: int
  end: int
  type: str


class SpanTables(NamedTuple):
  """What two tags side by side tell of spans, by their numbers.

  Number C, after the last tag, is the start and the end of a text.

  Attributes:
    starts: whether a span starts at a tag, [before, tag].
    ends: whether a span ends at a tag, [tag, next].
    types: number of each tag's type.
    allowed: whether a tag may follow another, [before, tag].
  """

  starts: np.ndarray
  ends: np.ndarray
  types: np.ndarray
  allowed: np.ndarray


def divide(text: str | Sequence[str], scheme: str) -> list[str]:
  """Return the tokens of a text that is divided into words, or written out.

  Of segmentation they are its characters, without white space.

  >>> divide("New York", "bio"), divide(["ab", "c"], "segmentation")
  ["New", "York"], ["a", "b", "c"]
  """
  if scheme == "segmentation":
    text = text if isinstance(text, str) else "".join(text)
    return list("".join(text.split()))
  return text.split() if isinstance(text, str) else list(text)


def is_tag(tag: str) -> bool:
  """Say whether a tag is one of a scheme with spans."""
  prefix, dash, kind = tag.partition("-")
  return tag == OUTSIDE or (prefix in tuple("BIES") and bool(dash and kind))


def all_tags(kinds: Iterable[str], scheme: str) -> list[str]:
  """List the tags that spans of these types may have, OUTSIDE first."""
  if scheme == "segmentation":
    return list(_PREFIXES[scheme])
  tags = [f"{prefix}-{kind}" for kind in kinds for prefix in _PREFIXES[scheme]]
  return [OUTSIDE, *tags]


def spans_of(tags: Sequence[str]) -> list[Span]:
  """Read spans from tags, also from tags that no scheme would write.

  As conlleval does (Tjong Kim Sang & Buchholz 2000), and seqeval unless it is
  strict: a span also starts at an I or E that continues no span.

  >>> spans_of(["I-city", "I-city", "I-person"])
  [Span(0, 2, "city"), Span(2, 3, "person")]
  """
  spans, start = [], 0
  for index, tag in enumerate(tags):
    before = tags[index - 1] if index else OUTSIDE
    after = tags[index + 1] if index + 1 < len(tags) else OUTSIDE
    if _starts(before, tag):
      start = index
    if _ends(tag, after):
      spans.append(Span(start, index + 1, _part(tag)[1]))
  return spans


def tags_of(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
  """Write spans as tags; no two may have a token in common.

  >>> tags_of([Span(1, 3, "city")], length=4, scheme="bioes")
  ["O", "B-city", "E-city", "O"]
  """
  tags = [OUTSIDE] * length
  begin, inside, *closing = _PREFIXES[scheme]
  for start, end, kind in spans:
    suffix = f"-{kind}" if kind else ""
    tags[start:end] = [inside + suffix] * (end - start)
    tags[start] = begin + suffix
    if closing:
      last, single = closing
      tags[end - 1] = (single if end == start + 1 else last) + suffix
  return tags


def words_to_tags(words: Iterable[str]) -> list[str]:
  """Write how characters are divided into words.

  >>> words_to_tags(["同樣", ",", "施力點"])
  ["B", "E", "S", "B", "M", "E"]
  """
  return [
    tag
    for word in ("".join(word.split()) for word in words)
    if word
    for tag in tags_of([Span(0, len(word), "")], len(word), "segmentation")
  ]


def tables_of(names: Sequence[str], scheme: str) -> SpanTables:
  """Make tables of tags in the order of their numbers."""
  tags = [*names, OUTSIDE]
  kinds = [_part(tag)[1] for tag in tags]
  pairs = [(before, after) for before in tags for after in tags]

  def table(rule) -> np.ndarray:
    values = [rule(before, after) for before, after in pairs]
    return np.array(values).reshape(len(tags), len(tags))

  return SpanTables(
    starts=table(_starts),
    ends=table(_ends),
    types=np.array([sorted(set(kinds)).index(kind) for kind in kinds]),
    allowed=table(lambda before, tag: _allowed(before, tag, scheme)),
  )


def _part(tag: str) -> tuple[str, str]:
  """Part a tag's prefix, with I for M, from its type."""
  prefix, _, kind = tag.partition("-")
  return "I" if prefix == "M" else prefix, kind


def _starts(before: str, tag: str) -> bool:
  (earlier, kind_before), (prefix, kind) = _part(before), _part(tag)
  if prefix == OUTSIDE:
    return False
  is_active = earlier in ("B", "I") and kind == kind_before
  return prefix in ("B", "S") or not is_active


def _ends(tag: str, after: str) -> bool:
  (prefix, kind), (later, kind_after) = _part(tag), _part(after)
  if prefix == OUTSIDE:
    return False
  is_active = later in ("I", "E") and kind == kind_after
  return prefix in ("E", "S") or not is_active


def _allowed(before: str, tag: str, scheme: str) -> bool:
  """Return whether a tag may follow another in a scheme."""
  is_active = _part(tag)[0] in ("I", "E")
  if is_active:
    return not _starts(before, tag)
  if scheme == "bio":
    return True
  return _part(before)[0] not in ("B", "I")
