# SPDX-License-Identifier: Apache-2.0
"""Span corruption: give a text with gaps, ask for what was in them."""

import dataclasses
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.objectives.objective import Objective
from lmjax.data.shuffle import draws
from lmjax.data.tokenizers import BOS, EOS, PAD, Tokenizer
from lmjax.errors import UsageError


class Sizes(NamedTuple):
  """How a row is divided; the same for all, so that none needs padding.

  Attributes:
    text: tokens of text.
    hidden: those of them that are in spans.
    spans: number of spans, a mark each.
  """

  text: int
  hidden: int
  spans: int

  @property
  def sources(self) -> int:
    """Tokens of the text with gaps, `<eos>` counted."""
    return self.text - self.hidden + self.spans + 1

  @property
  def targets(self) -> int:
    """Tokens of what was in the gaps, `<eos>` counted."""
    return self.hidden + self.spans + 1


@dataclasses.dataclass(frozen=True)
class SpanCorruption(Objective):
  """Cut spans out of a text and ask for them (Raffel et al. 2020).

  (arXiv:1910.10683, 3.1.4.) As in the authors' code, plain text and spans of
  random lengths take turns, from plain text to a span. In the sources each
  span is replaced by a mark of its own; the targets are the marks, each with
  what it stands for. Both end in `<eos>`.

  With tokens 4 to 13 for text, 14 and 15 for the marks, and B and E for
  `<bos>` and `<eos>`, a text with the spans 6 7 and 13:

      text          4  5  6  7  8  9 10 11 12 13
      sources       4  5 14  8  9 10 11 12 15  E
      source_mask   1  1  1  1  1  1  1  1  1  1
      inputs        B 14  6  7 15 13
      targets      14  6  7 15 13  E
      weights       1  1  1  1  1  1

  `source_mask` and `weights` are 0 behind the end of the text.

  Attributes:
    sizes: how a row is divided.
  """

  sizes: Sizes

  @property
  def extras(self) -> tuple[str, ...]:
    """Name the marks."""
    return tuple(f"<span_{index}>" for index in range(self.sizes.spans))

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Divide every row into sources and targets."""
    text, hidden, spans = self.sizes
    tokens_BT, is_real_BT = batch["inputs"], batch["weights"] > 0
    chances = draws(keys_B, text)
    plain_BN = divide(chances[:, : text - hidden - 1], spans)
    hidden_BN = divide(chances[:, -hidden:][:, 1:], spans)
    runs = np.stack([plain_BN, hidden_BN], axis=2).reshape(len(keys_B), -1)
    begins_BT = np.zeros(tokens_BT.shape, bool)
    np.put_along_axis(begins_BT, np.cumsum(runs, axis=1) - runs, True, axis=1)
    run_BT = np.cumsum(begins_BT, axis=1) - 1
    is_hidden_BT = run_BT % 2 == 1
    mark_BT = tokenizer.num_plain + run_BT // 2

    def gather(is_kept_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      """Keep some runs, and of the others one mark each; then `<eos>`."""
      taken_BT = is_kept_BT | begins_BT
      tokens = np.where(is_kept_BT, tokens_BT, mark_BT)[taken_BT]
      is_real = is_real_BT[taken_BT].reshape(len(keys_B), -1)
      tokens = tokens.reshape(len(keys_B), -1)
      eos = np.full((len(keys_B), 1), EOS, tokens.dtype)
      tokens = np.concatenate([tokens, eos], axis=1)
      is_real = np.concatenate([is_real, is_real_BT[:, -1:]], axis=1)
      return np.where(is_real, tokens, PAD).astype(np.int32), is_real

    sources_BS, source_mask_BS = gather(~is_hidden_BT)
    targets_BT, is_target_BT = gather(is_hidden_BT)
    bos = np.full((len(keys_B), 1), BOS, np.int32)
    return dict(
      sources=sources_BS,
      source_mask=source_mask_BS,
      inputs=np.concatenate([bos, targets_BT[:, :-1]], axis=1),
      targets=targets_BT,
      weights=is_target_BT.astype(np.float32),
    )


def divide(chances_BN: np.ndarray, parts: int) -> np.ndarray:
  """Divide N + 1 things into parts of at least one, all divisions alike.

  The `parts - 1` lowest chances say between which neighbours it is cut:

      divide([[0.9, 0.1, 0.5, 0.3]], 3) → [[2, 2, 1]]
  """
  order_BN = np.argsort(chances_BN, axis=1, kind="stable")
  cuts = 1 + np.sort(order_BN[:, : parts - 1], axis=1)
  total = chances_BN.shape[1] + 1
  return np.diff(cuts, axis=1, prepend=0, append=total)


def fit(length: int, rate: float, span_length: float) -> Sizes:
  """Find how much text fills sources of some length.

  >>> fit(512, 0.15, 3.0)
  Sizes(text=568, hidden=85, spans=28)

  Raises:
    UsageError: if there is no room for a token and a span.
  """

  def sizes(text: int) -> Sizes:
    hidden = min(max(round(text * rate), 1), text - 1)
    spans = max(round(hidden / span_length), 1)
    return Sizes(text, hidden, min(spans, hidden, text - hidden))

  best = None
  for text in range(2, int(length / (1 - rate)) + 2):
    if sizes(text).sources == length:
      best = sizes(text)
  if best is None:
    raise UsageError(
      f"data.window={length} is too short for task=span_corruption with "
      f"objective.mask_rate={rate} and objective.span_length={span_length}."
    )
  return best


def build(config: ConfigDict) -> SpanCorruption:
  """Make the objective that a config describes.

  Raises:
    UsageError: if a window is too short, or memory is to be emptied in it.
  """
  objective, data = config.objective, config.data
  if data.reset_at_documents:
    raise UsageError(
      "data.reset_at_documents=True is not read by task=span_corruption, whose "
      "sources are read as one text; set it to False."
    )
  sizes = fit(data.window, objective.mask_rate, objective.span_length)
  return SpanCorruption(sizes.text, sizes)
