# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from lmjax.data.records.tag_schemes import (
  Span,
  all_tags,
  spans_of,
  tables_of,
  tags_of,
  words_to_tags,
)

KINDS = ("x", "y")


def random_tags(scheme, number=300, seed=0):
  """Draw tags that follow no scheme's rules."""
  rng = np.random.default_rng(seed)
  names = all_tags(KINDS, scheme)
  for _ in range(number):
    yield [names[tag] for tag in rng.integers(0, len(names), rng.integers(9))]


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_spans_are_those_of_seqeval(scheme):
  for tags in random_tags(scheme):
    wanted = [(start, end + 1, kind) for kind, start, end in get_entities(tags)]
    assert [tuple(span) for span in spans_of(tags)] == wanted


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
@pytest.mark.parametrize("read", ["bio", "bioes"])
def test_any_scheme_holds_the_spans_of_any(scheme, read):
  for tags in random_tags(read):
    spans = spans_of(tags)
    written = tags_of(spans, len(tags), scheme)
    assert set(written) <= set(all_tags(KINDS, scheme))
    assert spans_of(written) == spans


@pytest.mark.parametrize("scheme", ["bio", "bioes", "segmentation"])
def test_what_is_written_is_what_is_allowed(scheme):
  names = all_tags(KINDS, scheme)
  allowed = tables_of(names, scheme).allowed
  numbers = {name: index for index, name in enumerate(names)}
  seen = np.zeros_like(allowed)
  for tags in random_tags("bioes", 3000):
    if scheme == "segmentation":
      tags = words_to_tags("?" * len(tag) for tag in [*tags, tags])
    else:
      tags = tags_of(spans_of(tags), len(tags), scheme)
    path = [len(names), *(numbers[tag] for tag in tags), len(names)]
    seen[path[:-1], path[1:]] = True
  np.testing.assert_array_equal(seen, allowed)


def test_words_are_spans_of_their_characters():
  words = ["a", "bcd", "ef"]
  tags = words_to_tags(words)
  assert tags == ["S", "B", "M", "E", "B", "E"]
  assert spans_of(tags) == [Span(0, 1, ""), Span(1, 4, ""), Span(4, 6, "")]


def test_any_tags_of_characters_divide_a_text():
  rng = np.random.default_rng(0)
  for _ in range(200):
    tags = ["BMES"[tag] for tag in rng.integers(0, 4, 7)]
    spans = spans_of(tags)
    assert [span.start for span in spans[1:]] == [s.end for s in spans[:-1]]
    assert (spans[0].start, spans[-1].end) == (0, 7)
