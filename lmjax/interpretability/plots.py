# SPDX-License-Identifier: Apache-2.0
"""Explanations as pictures, by Matplotlib and without a display."""

import functools
import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

# Fonts with more than Latin letters; those that are installed are used.
FONTS = (
  "Noto Sans CJK SC",
  "Noto Sans CJK JP",
  "Noto Sans SC",
  "Source Han Sans SC",
  "WenQuanYi Zen Hei",
  "WenQuanYi Micro Hei",
  "PingFang SC",
  "Microsoft YaHei",
  "SimHei",
  "Arial Unicode MS",
)
MAX_LABELS = 80  # tokens beside an image; more would not be readable


@functools.cache
def _fonts() -> tuple[list[str], list]:
  """Return the names of the fonts for plots, and their glyph tables."""
  installed = {font.name for font in font_manager.fontManager.ttflist}
  names = ["DejaVu Sans", *(name for name in FONTS if name in installed)]
  files = [font_manager.findfont(name) for name in names]
  return names, [font_manager.get_font(file) for file in files]


def label(token: str) -> str:
  """Write a token with what the fonts have; other characters by number.

  >>> label("a b"), label("中")  # without a font for Chinese
  ("a␣b", "U+4E2D")
  """
  shown = token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")
  _, fonts = _fonts()
  return "".join(
    character
    if any(font.get_char_index(ord(character)) for font in fonts)
    else f"U+{ord(character):04X}"
    for character in shown
  )


def _png(figure: Figure) -> bytes:
  data = io.BytesIO()
  figure.savefig(data, format="png", dpi=110, bbox_inches="tight")
  return data.getvalue()


def _with_fonts(plot):
  """Use these fonts, and print dollar signs literally."""

  @functools.wraps(plot)
  def drawing(*arguments):
    names, _ = _fonts()
    settings = {"font.family": names, "text.parse_math": False, "font.size": 8}
    with matplotlib.rc_context(settings):
      return _png(plot(*arguments))

  return drawing


@_with_fonts
def attribution_bars(
  tokens: Sequence[str], attributions: dict[str, np.ndarray]
) -> bytes:
  """Plot bars per token, one row per method; return a PNG."""
  width = max(4.0, 0.32 * len(tokens))
  figure = Figure(figsize=(min(width, 30.0), 2.0 * len(attributions)))
  rows = figure.subplots(len(attributions), squeeze=False, sharex=True)[:, 0]
  for axes, (method, values_T) in zip(rows, attributions.items(), strict=True):
    colors = np.where(values_T < 0, "tab:red", "tab:blue")
    axes.bar(range(len(tokens)), values_T, color=colors)
    axes.axhline(0.0, color="black", linewidth=0.5)
    axes.set_title(method, loc="left")
  _label_axis(rows[-1].xaxis, tokens, rotation=90)
  return figure


@_with_fonts
def attention_map(
  columns: Sequence[str],
  weights_HTS: np.ndarray,
  rows: Sequence[str] | None = None,
) -> bytes:
  """Plot attention weights, one image per head; return a PNG.

  Rows look at columns; the darker, the more, beside the largest of all weights.
  Rows are columns if they are not named. Of pooling there is one row.
  """
  heads, number, _ = weights_HTS.shape
  rows = (rows or columns) if number > 1 else [""]
  across = min(heads, 4)
  down = math.ceil(heads / across)
  width, height = (min(max(2.2, 0.16 * len(x)), 10.0) for x in (columns, rows))
  height = height if number > 1 else 1.4
  most = float(weights_HTS.max())
  figure = Figure(figsize=(across * width, down * height))
  places = figure.subplots(down, across, squeeze=False)
  for index, axes in enumerate(places.flat):
    if index >= heads:
      axes.set_axis_off()
      continue
    axes.imshow(
      weights_HTS[index], cmap="Blues", vmin=0.0, vmax=most, aspect="auto"
    )
    if heads > 1:
      axes.set_title(f"head {index}", loc="left")
    _label_axis(axes.xaxis, columns, rotation=90)
    _label_axis(axes.yaxis, rows)
  figure.tight_layout()
  return figure


@_with_fonts
def scatter(
  words: Sequence[str], points_N2: np.ndarray, shares_2: np.ndarray
) -> bytes:
  """Plot words at points of the plane; return a PNG.

  Args:
    words: the word at each point.
    points_N2: coordinates.
    shares_2: fraction of the variance along each axis.
  """
  figure = Figure(figsize=(8.0, 8.0))
  axes = figure.subplots()
  axes.scatter(*points_N2.T, s=4, color="tab:blue")
  for word, point in zip(words, points_N2, strict=True):
    axes.annotate(label(word), point, fontsize=7)
  axes.set_xlabel(f"{shares_2[0]:.1%} of the variance")
  axes.set_ylabel(f"{shares_2[1]:.1%} of the variance")
  return figure


def _label_axis(axis, tokens: Sequence[str], **style) -> None:
  if len(tokens) > MAX_LABELS:
    return
  axis.set_ticks(range(len(tokens)), [label(token) for token in tokens])
  axis.set_tick_params(length=0)
  for text in axis.get_ticklabels():
    text.set(fontsize=7, **style)
