# SPDX-License-Identifier: Apache-2.0
"""A folder with all that explains a text: pictures, and a page with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lmjax.interpretability.explainers import Explanation
from lmjax.interpretability.page import page
from lmjax.interpretability.plots import (
  attention_map,
  attribution_bars,
  scatter,
)
from lmjax.interpretability.projection import principal_components


def write_report(
  folder: Path,
  explanation: Explanation,
  words: Sequence[str],
  vectors_ND: np.ndarray,
) -> list[Path]:
  """Write attributions.png, attention_N.png, embeddings.png and index.html.

  Args:
    folder: made if it is not there.
    explanation: the explanation of a text.
    words: words whose embeddings are plotted; needs at least 3.
    vectors_ND: their embeddings.

  Returns:
    The files, the page first.
  """
  tokens = explanation.tokens
  bars = attribution_bars(tokens, explanation.attributions)
  pictures = {"attributions": ("attributions.png", bars)}
  for index, (name, weights_HTS) in enumerate(explanation.maps.items()):
    image = attention_map(tokens, weights_HTS)
    pictures[name] = (f"attention_{index}.png", image)
  if len(words) > 2:
    image = scatter(words, *principal_components(vectors_ND))
    pictures["embeddings"] = ("embeddings.png", image)
  folder.mkdir(parents=True, exist_ok=True)
  for file, data in pictures.values():
    (folder / file).write_bytes(data)
  index = folder / "index.html"
  inline = {name: data for name, (_, data) in pictures.items()}
  index.write_text(page(explanation, inline), encoding="utf-8")
  return [index, *(folder / file for file, _ in pictures.values())]


def shown(explanation: Explanation) -> str:
  """Write an explanation in lines: its target, then a token a line."""
  methods: Mapping[str, np.ndarray] = explanation.attributions
  widest = max(map(len, map(repr, explanation.tokens)))
  lines = [
    f"{explanation.target!r}: {explanation.log_prob:.3f} nats, "
    f"{explanation.blank:.3f} without the text",
    f"{'':{widest}}  {'  '.join(methods)}",
  ]
  for index, token in enumerate(explanation.tokens):
    numbers = (f"{v[index]:>{len(name)}.3f}" for name, v in methods.items())
    lines.append(f"{token!r:{widest}}  {'  '.join(numbers)}")
  return "\n".join(lines)
