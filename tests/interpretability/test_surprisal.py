# SPDX-License-Identifier: Apache-2.0
"""Tokens as pieces of text, and texts shaded by surprisal."""

import html
import math
import re

import numpy as np
import pytest

from lmjax.data.tokenizers import TOKENIZERS
from lmjax.interpretability.spans import Span, spans
from lmjax.interpretability.surprisal import (
  colored,
  shaded,
  surprisal_page,
  table,
)

TEXT = "grün 中 ate\n\n🦉 x"
SPANS = [Span("a", math.nan), Span(" <b>\n", 0.0), Span("&c", 13.0)]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_spans_are_the_text_and_lose_no_number(kind):
  tokenizer = TOKENIZERS[kind].train([TEXT], 270, 1, False)
  tokens = tokenizer.encode(TEXT)
  values = np.arange(len(tokens)) + 1.0
  found = spans(tokenizer, tokens, values)
  assert "".join(text for text, _ in found) == tokenizer.decode(tokens)
  assert sum(value for _, value in found) == values.sum()
  assert not any("\ufffd" in text for text, _ in found)


def test_half_a_character_at_the_end_is_shown_as_such():
  tokenizer = TOKENIZERS["byte"].train([], 0, 1, False)
  tokens = tokenizer.encode("a中")[:-1]
  found = spans(tokenizer, tokens, np.array([1.0, 2.0, 3.0]))
  assert found == [Span("a", 1.0), Span("\ufffd", 5.0)]


def test_colours_go_away_and_leave_the_text():
  plain = re.sub(r"\x1b\[[0-9;]*m", "", colored(SPANS))
  assert plain == "a <b>↵\n&c"
  grounds = re.findall(r"48;5;(\d+)m", colored(SPANS))
  assert grounds == ["231", "231", "196"]  # behind a line's end once more
  for line in colored(SPANS).split("\n"):
    assert line.endswith("\x1b[0m")
  assert table(SPANS).splitlines()[1:] == [
    "    0.00  ' <b>\\n'",
    "   13.00  '&c'",
  ]


def test_the_page_shades_every_token_and_needs_no_other_file():
  page = surprisal_page([("2 < 3", SPANS)], {"layer 0": b"\x89PNG"})
  shown = re.search(r'<p class="text">(.*?)</p>', page).group(1)
  names = re.sub(r"<br>", "\n", shown)
  assert html.unescape(re.sub(r"<[^<]*?>", "", names)) == "a <b>↵\n&c"
  shades = re.findall(r"rgba\(214,39,40,([0-9.]+)\)", page)
  assert shades == ["0.00", "1.00"]
  assert "2 &lt; 3" in page and "probability 0.000122" in page
  assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
  assert shaded([Span("a", 6.0)]).count("0.50)") == 1
