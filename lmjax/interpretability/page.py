# SPDX-License-Identifier: Apache-2.0
"""Explanations as one HTML page that needs no other file."""

import base64
import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from lmjax.interpretability.explainers import INTEGRATED, Explanation

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 60em; }
.text { line-height: 2; }
.text span { border-radius: 3px; padding: 2px 1px; white-space: pre-wrap; }
img { max-width: 100%; }
"""


def shaded(tokens: Sequence[str], values_T: np.ndarray) -> str:
  """Write tokens as HTML: blue what speaks for, red what speaks against."""
  most = max(float(np.abs(values_T).max(initial=0.0)), 1e-30)
  spans = []
  for token, value in zip(tokens, map(float, values_T), strict=True):
    color = "31,119,180" if value >= 0 else "214,39,40"
    shade = f"background: rgba({color},{abs(value) / most:.2f})"
    name = html.escape(token.replace("\n", "↵"))
    spans.append(f'<span style="{shade}" title="{value:+.4f}">{name}</span>')
  return f'<p class="text">{" ".join(spans)}</p>'


def page(explanation: Explanation, pictures: Mapping[str, bytes]) -> str:
  """Write an explanation as HTML.

  Args:
    explanation: what it is about.
    pictures: PNGs by title.
  """
  target, log_prob = explanation.target, explanation.log_prob
  moved = log_prob - explanation.blank
  total = float(explanation.attributions[INTEGRATED].sum())
  title = html.escape(f"Why {target!r}")
  parts = [
    f"<h1>{title}</h1>",
    f"<p>The model gives it {math.exp(log_prob):.2%}: {log_prob:.3f} nats, and "
    f"{explanation.blank:.3f} to a text of nothing. Integrated gradients add "
    f"up to {total:.3f} of the {moved:.3f} nats between them.</p>",
  ]
  for method, values_T in explanation.attributions.items():
    parts += [f"<h2>{html.escape(method)}</h2>"]
    parts += [shaded(explanation.tokens, values_T)]
  parts += pictured(pictures)
  return document(title, parts)


def pictured(pictures: Mapping[str, bytes]) -> list[str]:
  """Write PNGs as HTML, each under its title."""
  parts = []
  for name, data in pictures.items():
    inline = base64.b64encode(data).decode()
    parts.append(f"<h2>{html.escape(name)}</h2>")
    parts.append(f'<img alt="" src="data:image/png;base64,{inline}">')
  return parts


def document(title: str, parts: Sequence[str]) -> str:
  """Write a page.

  Args:
    title: as HTML.
    parts: what the page shows, as HTML.
  """
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
    + "\n".join(parts)
    + "\n</body></html>\n"
  )
