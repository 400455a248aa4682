# SPDX-License-Identifier: Apache-2.0
"""Texts shaded by how much their tokens surprise a model: lines, and a page."""

import html
import math
from collections.abc import Mapping, Sequence

from lmjax.interpretability.page import document, pictured
from lmjax.interpretability.spans import Span

DARKEST = 12.0  # bits; what surprises more is shaded alike, in every text
# From white to red among the 256 colors of terminals.
_RAMP = (231, 224, 217, 210, 203, 196)
_RESET = "\x1b[0m"


def colored(spans: Sequence[Span]) -> str:
  """Write a text for a terminal, the redder its ground the more surprising.

  Line's ends are shown, and end the color. What has no number has none.
  """
  parts = []
  for text, bits in spans:
    if math.isnan(bits):
      parts.append(text)
      continue
    ground = f"\x1b[38;5;16;48;5;{_RAMP[_level(bits)]}m"
    marked = text.replace("\n", f"↵{_RESET}\n{ground}")
    parts.append(f"{ground}{marked}{_RESET}")
  return "".join(parts)


def legend() -> str:
  """Return the legend of the colors of `colored`."""
  step = DARKEST / len(_RAMP)
  boxes = "".join(
    f"\x1b[38;5;16;48;5;{color}m {level * step:.0f}+ {_RESET}"
    for level, color in enumerate(_RAMP)
  )
  return f"{boxes} bits"


def table(spans: Sequence[Span]) -> str:
  """Write a token a line, its bits before it."""
  return "\n".join(f"{_number(bits):>8}  {text!r}" for text, bits in spans)


def shaded(spans: Sequence[Span]) -> str:
  """Write a text as HTML, the redder the more surprising."""
  parts = []
  for text, bits in spans:
    name = html.escape(text).replace("\n", "↵<br>")
    if math.isnan(bits):
      parts.append(f'<span title="not scored">{name}</span>')
      continue
    share = min(bits / DARKEST, 1.0)
    title = f"{_number(bits)} bits, probability {2.0**-bits:.3g}"
    shade = f"background: rgba(214,39,40,{share:.2f})"
    parts.append(f'<span style="{shade}" title="{title}">{name}</span>')
  return f'<p class="text">{"".join(parts)}</p>'


def surprisal_page(
  texts: Sequence[tuple[str, Sequence[Span]]], pictures: Mapping[str, bytes]
) -> str:
  """Write texts as a page that needs no other file.

  Args:
    texts: what is said of each, and its spans.
    pictures: PNGs by title.
  """
  title = "How surprising each token is"
  parts = [
    f"<h1>{title}</h1>",
    f"<p>From white, 0 bits, to red, {DARKEST:.0f} bits and more.</p>",
  ]
  for summary, spans in texts:
    parts += [shaded(spans), f"<p>{html.escape(summary)}</p>"]
  return document(title, [*parts, *pictured(pictures)])


def _level(bits: float) -> int:
  level = max(bits, 0.0) / DARKEST * len(_RAMP)
  return int(min(level, len(_RAMP) - 1))


def _number(bits: float) -> str:
  return "–" if math.isnan(bits) else f"{bits:.2f}"
