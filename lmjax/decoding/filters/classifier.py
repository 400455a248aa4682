# SPDX-License-Identifier: Apache-2.0
"""Guidance by a classifier."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  Prompt,
  filter_class,
  per_row,
  static,
)
from lmjax.types import Array, PyTree


@filter_class
class Classifier(Filter):
  """Prefer tokens that move the text to a class.

  To the logits of the k most likely tokens is added how probable a classifier
  takes the class to be of the text with that token behind it, in nats, times a
  weight; no other token is drawn. With weight 1 these are the odds of Bayes'
  rule (FUDGE; Yang and Klein 2021, arXiv:2104.05218). The text is the prompt
  and all that was drawn; of a longer one, its newest tokens.

  Attributes:
    variables: of the classifier.
    weight: how much it counts.
    log_prob: turns variables, tokens [N, W], zeros behind them, and a mask
      that is true on tokens, into the log-probability of the class, [N].
    num_candidates: k.
    window: W, how many tokens the classifier reads at most.
    unread: tokens that it never sees, such as `<eos>`.
  """

  variables: PyTree
  weight: Array | float
  log_prob: Callable[[PyTree, Array, Array], Array] = static()
  num_candidates: int = static()
  window: int = static()
  unread: tuple[int, ...] = static()

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Take the prompt's tokens; the first ones of the state are a text's."""
    del vocab_size
    tokens_BT, window = prompt.tokens_BT.astype(jnp.int32), self.window
    kept_BT = prompt.is_text() & self._is_read(tokens_BT)
    newest_first_BT = jnp.argsort(~kept_BT[:, ::-1], axis=1, stable=True)
    # A classifier may have no row for what it does not read.
    tokens_BT = jnp.where(kept_BT, tokens_BT, 0)[:, ::-1]
    tokens_BT = jnp.take_along_axis(tokens_BT, newest_first_BT, axis=1)
    tokens_BT = jnp.pad(tokens_BT, ((0, 0), (0, window)))[:, :window]
    length_B = jnp.minimum(kept_BT.sum(axis=1), window)
    place_BW = (length_B[:, None] - 1 - jnp.arange(window)) % window
    return jnp.take_along_axis(tokens_BT, place_BW, axis=1), length_B

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Score the most likely tokens anew, and leave no others."""
    size = min(self.num_candidates, logits_BV.shape[-1])
    best_BK, token_BK = jax.lax.top_k(logits_BV, size)
    texts = jax.vmap(self._append, (None, 1), 1)(state, token_BK)
    tokens_BKW, length_BK = texts
    # A text of nothing is judged by its padding.
    mask_BKW = jnp.arange(self.window) < jnp.maximum(length_BK, 1)[..., None]
    said_N = self.log_prob(
      self.variables,
      tokens_BKW.reshape(-1, self.window),
      mask_BKW.reshape(-1, self.window),
    )
    said_BK = per_row(self.weight) * said_N.reshape(token_BK.shape)
    rows = jnp.arange(len(logits_BV))[:, None]
    none_BV = jnp.full_like(logits_BV, -jnp.inf)
    return none_BV.at[rows, token_BK].set(best_BK + said_BK)

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Put the token behind the text."""
    del log_prob_B
    return self._append(state, token_B)

  def _append(
    self, state: tuple[Array, Array], token_B: Array
  ) -> tuple[Array, Array]:
    """Put a token behind each text, whose first one is lost if it is full."""
    tokens_BW, length_B = state
    full_B1 = (length_B == self.window)[:, None]
    longer_BW = jnp.where(full_B1, jnp.roll(tokens_BW, -1, axis=1), tokens_BW)
    place_B1 = jnp.minimum(length_B, self.window - 1)[:, None]
    is_new_BW = jnp.arange(self.window) == place_B1
    longer_BW = jnp.where(is_new_BW, token_B[:, None], longer_BW)
    read_B = self._is_read(token_B)
    return (
      jnp.where(read_B[:, None], longer_BW, tokens_BW),
      jnp.where(read_B, jnp.minimum(length_B + 1, self.window), length_B),
    )

  def _is_read(self, tokens: Array) -> Array:
    return ~jnp.isin(tokens, jnp.array(self.unread, jnp.int32))
