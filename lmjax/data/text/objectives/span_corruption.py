# SPDX-License-Identifier: Apache-2.0
"""Span corruption: give a text with gaps, ask for what was in them."""

import dataclasses
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.shuffle import uniform
from lmjax.data.text.objectives.objective import Objective
from lmjax.data.tokenizers import Tokenizer
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
  """Replace spans by sentinel tokens and predict them (Raffel et al. 2020).

  (arXiv:1910.10683, section 3.1.4.) A fixed number of tokens is in a fixed
  number of spans with random lengths, which are not adjacent. (In the code of
  the paper every text starts outside of a span and ends in one.) In the sources
  each span is replaced by its own sentinel; the targets are the sentinels, each
  followed by its span. Both end in `<eos>`.

  With tokens 4 to 13 for text, sentinels 14 and 15, and B and E for `<bos>` and
  `<eos>`, a text with the spans 6 7 and 11:

      text          4  5  6  7  8  9 10 11 12 13
      sources       4  5 14  8  9 10 15 12 13  E
      source_mask   1  1  1  1  1  1  1  1  1  1
      inputs        B 14  6  7 15 11
      targets      14  6  7 15 11  E
      weights       1  1  1  1  1  1

  `source_mask` and `weights` are 0 after the end of the text.

  Attributes:
    sizes: how a row is divided.
  """

  sizes: Sizes

  @property
  def longest(self) -> int:
    """Return the length of sources or targets, whichever is longer."""
    return max(self.sizes.sources, self.sizes.targets)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    """Return the names of the sentinels."""
    return tuple(f"<span_{index}>" for index in range(self.sizes.spans))

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Divide every row into sources and targets."""
    hidden, num_spans = self.sizes.hidden, self.sizes.spans
    tokens_BT, is_real_BT = batch["inputs"], batch["weights"] > 0
    num_rows, num_tokens = tokens_BT.shape
    samples = uniform(keys_B, num_tokens)
    gaps_BN = divide(samples[:, hidden - 1 :], num_spans + 1)
    gaps_BN[:, 0] -= 1  # the first and the last one may be empty
    lengths_BN = divide(samples[:, : hidden - 1], num_spans)
    starts_BN = np.cumsum(gaps_BN[:, :-1] + lengths_BN, axis=1) - lengths_BN
    starts_BT, ends_BT = np.zeros((2, num_rows, num_tokens + 1), np.int32)
    np.put_along_axis(starts_BT, starts_BN, 1, axis=1)
    np.put_along_axis(ends_BT, starts_BN + lengths_BN, 1, axis=1)
    span_BT = np.cumsum(starts_BT, axis=1)[:, :-1]
    is_hidden_BT = span_BT > np.cumsum(ends_BT, axis=1)[:, :-1]
    starts_BT = starts_BT[:, :-1] > 0
    sentinel_BT = tokenizer.base_vocab_size - 1 + span_BT

    def gather(is_taken_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      """Select tokens, and the sentinels at their positions; append `<eos>`."""
      taken = np.stack([starts_BT, is_taken_BT], axis=2)
      tokens = np.stack([sentinel_BT, tokens_BT], axis=2)[taken]
      is_real = np.broadcast_to(is_real_BT[..., None], taken.shape)[taken]
      eos = np.full((num_rows, 1), tokenizer.eos_id)
      tokens = np.hstack([tokens.reshape(num_rows, -1), eos])
      is_real = is_real.reshape(num_rows, -1)
      is_real = np.hstack([is_real, is_real_BT[:, -1:]])
      tokens = np.where(is_real, tokens, tokenizer.pad_id)
      return tokens.astype(np.int32), is_real

    sources_BS, source_mask_BS = gather(~is_hidden_BT)
    targets_BT, is_target_BT = gather(is_hidden_BT)
    bos = np.full((num_rows, 1), tokenizer.bos_id, np.int32)
    return dict(
      sources=sources_BS,
      source_mask=source_mask_BS,
      inputs=np.hstack([bos, targets_BT[:, :-1]]),
      targets=targets_BT,
      weights=is_target_BT.astype(np.float32),
    )


def divide(uniform_BN: np.ndarray, parts: int) -> np.ndarray:
  """Divide N + 1 items into non-empty parts, all divisions equally likely.

  The divisions are at the `parts - 1` lowest random numbers:

  >>> divide([[0.9, 0.1, 0.5, 0.3]], 3)
  [[2, 2, 1]]
  """
  order_BN = np.argsort(uniform_BN, axis=1, kind="stable")
  splits = 1 + np.sort(order_BN[:, : parts - 1], axis=1)
  total = uniform_BN.shape[1] + 1
  return np.diff(splits, axis=1, prepend=0, append=total)


def fit(length: int, rate: float, span_length: float) -> Sizes:
  """Return how much text fills sources of a given length.

  >>> fit(512, 0.15, 3.0)
  Sizes(text=568, hidden=85, spans=28)

  Raises:
    UsageError: if there is no room for a token and a span.
  """
  best = None
  for text in range(2, int(length / (1 - rate)) + 2):
    hidden = min(max(round(text * rate), 1), text - 1)
    sizes = Sizes(text, hidden, max(round(hidden / span_length), 1))
    if sizes.sources == length and sizes.spans <= text - hidden + 1:
      best = sizes
  if best is None:
    raise UsageError(
      f"data.seq_len={length} has no room for text between spans of "
      f"objective.span_length={span_length} at objective.mask_rate={rate}; "
      "choose a longer window, longer spans or a lower rate."
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
  sizes = fit(data.seq_len, objective.mask_rate, objective.span_length)
  return SpanCorruption(sizes.text, sizes)
