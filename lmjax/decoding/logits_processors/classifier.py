# SPDX-License-Identifier: Apache-2.0
"""Guidance by a classifier."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  logits_processor_class,
  per_row,
  static,
)
from lmjax.types import Array, PyTree


@logits_processor_class
class Classifier(LogitsProcessor):
  """Favor tokens after which a classifier predicts a given class.

  The log-probability of the class given the text and the token, times a weight,
  is added to the logits of the k most likely tokens; no other token is
  generated. Weight 1 is Bayes' rule (FUDGE; Yang and Klein 2021,
  arXiv:2104.05218). The text is the prompt and all generated tokens, or the
  newest of them if it is too long for the classifier.

  Attributes:
    variables: variables of the classifier.
    weight: weight of the log-probabilities.
    log_prob: maps variables, tokens [N, T], padded with zeros at the end, and a
      mask that is True at tokens to the log-probability of the class in nats,
      [N].
    num_candidates: k.
    seq_len: T, maximum number of tokens that the classifier processes.
    skipped: tokens that it does not process, such as `<eos>`.
  """

  variables: PyTree
  weight: Array | float
  log_prob: Callable[[PyTree, Array, Array], Array] = static()
  num_candidates: int = static()
  seq_len: int = static()
  skipped: tuple[int, ...] = static()

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Return the newest tokens of prompts, right-padded, and their number."""
    del vocab_size
    tokens_BT, seq_len = prompt.tokens_BT.astype(jnp.int32), self.seq_len
    is_text_BT = prompt.is_text() & self._is_processed(tokens_BT)
    newest_first_BT = jnp.argsort(~is_text_BT[:, ::-1], axis=1, stable=True)
    # The embedding table of the classifier may have no row for other tokens.
    tokens_BT = jnp.where(is_text_BT, tokens_BT, 0)[:, ::-1]
    tokens_BT = jnp.take_along_axis(tokens_BT, newest_first_BT, axis=1)
    tokens_BT = jnp.pad(tokens_BT, ((0, 0), (0, seq_len)))[:, :seq_len]
    length_B = jnp.minimum(is_text_BT.sum(axis=1), seq_len)
    # Newest first becomes oldest first.
    index_BT = (length_B[:, None] - 1 - jnp.arange(seq_len)) % seq_len
    return jnp.take_along_axis(tokens_BT, index_BT, axis=1), length_B

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Add the log-probability of the class to the most likely tokens."""
    size = min(self.num_candidates, logits_BV.shape[-1])
    top_BO, token_BO = jax.lax.top_k(logits_BV, size)
    texts = jax.vmap(self._append, (None, 1), 1)(state, token_BO)
    tokens_BOT, length_BO = texts
    # An empty text is classified by one padding token.
    mask_BOT = jnp.arange(self.seq_len) < jnp.maximum(length_BO, 1)[..., None]
    log_probs_N = self.log_prob(
      self.variables,
      tokens_BOT.reshape(-1, self.seq_len),
      mask_BOT.reshape(-1, self.seq_len),
    )
    added_BO = per_row(self.weight) * log_probs_N.reshape(token_BO.shape)
    rows = jnp.arange(len(logits_BV))[:, None]
    excluded_BV = jnp.full_like(logits_BV, -jnp.inf)
    return excluded_BV.at[rows, token_BO].set(top_BO + added_BO)

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Append the token to the text."""
    del log_prob_B
    return self._append(state, token_B)

  def _append(
    self, state: tuple[Array, Array], token_B: Array
  ) -> tuple[Array, Array]:
    """Append a token to each text; a full one loses its first token."""
    tokens_BT, length_B = state
    is_full_B1 = (length_B == self.seq_len)[:, None]
    longer_BT = jnp.where(
      is_full_B1, jnp.roll(tokens_BT, -1, axis=1), tokens_BT
    )
    index_B1 = jnp.minimum(length_B, self.seq_len - 1)[:, None]
    is_new_BT = jnp.arange(self.seq_len) == index_B1
    longer_BT = jnp.where(is_new_BT, token_B[:, None], longer_BT)
    is_processed_B = self._is_processed(token_B)
    return (
      jnp.where(is_processed_B[:, None], longer_BT, tokens_BT),
      jnp.where(
        is_processed_B, jnp.minimum(length_B + 1, self.seq_len), length_B
      ),
    )

  def _is_processed(self, tokens: Array) -> Array:
    return ~jnp.isin(tokens, jnp.array(self.skipped, jnp.int32))
