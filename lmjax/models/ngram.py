# SPDX-License-Identifier: Apache-2.0
"""The n-gram language model: estimated by counting, without gradients.

lmjax.ngrams counts and smooths with NumPy; lmjax.ops.ngram_lookup evaluates the
tables, which are variables of the collection "ngrams".

Dimension letters:

    M  tokens of a context, or orders of the model
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lmjax.errors import UsageError, UserError
from lmjax.models.language_model import LanguageModel
from lmjax.ngrams import arpa, smoothing
from lmjax.ngrams.backoff import Backoff
from lmjax.ngrams.best_tokens import best_tokens
from lmjax.ngrams.counting import count
from lmjax.ngrams.grams import Grams, unigrams
from lmjax.ops import ngram_lookup
from lmjax.ops.linear_cross_entropy import CrossEntropy
from lmjax.ops.ngram_lookup import Order
from lmjax.types import Array, PyTree

SMOOTHINGS = (
  "maximum_likelihood",
  "add_k",
  "stupid_backoff",
  "kneser_ney",
  "modified_kneser_ney",
)
NEVER_NEXT = ("<pad>", "<bos>")  # tokens of probability 0


class NGram(LanguageModel):
  """Back-off n-gram model (Chen & Goodman 1999 compare its smoothings).

  `hidden` holds, for contexts of the last 1 to n - 1 tokens, their indices in
  the tables, int32 [B, T, n - 1]; -1 if a context was not counted. The carry is
  `hidden` of the newest token: it determines all later probabilities. Before
  `estimate`, all tokens are equally likely.

  Attributes:
    vocab_size: vocabulary size V.
    order: the n.
    smooth: function from the counts of orders 1 to n, and from the tokens to
      exclude as `excluded`, to tables.
    arpa: ARPA file to load instead of counting; empty for none.
    within_documents: whether n-grams do not cross document boundaries.
  """

  vocab_size: int
  order: int
  smooth: Callable[..., list[Backoff]]
  arpa: str = ""
  within_documents: bool = False

  # No "infiller": counting uses the text itself, not rearranged batches.
  kinds = ("decoder",)
  max_context = None  # the carry has a fixed size
  dtype = jnp.float32

  def setup(self):
    """Create the tables."""

    def table(name: str, number: int, initial: Array) -> Array:
      return self.variable("ngrams", f"{name}_{number}", lambda: initial).value

    # `init` does not know the number of n-grams: tables of higher orders start
    # empty, and those that `estimate` returns have other shapes.
    uniform = -jnp.log(jnp.full(self.vocab_size, self.vocab_size, jnp.float32))
    none, no_log = jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.float32)
    orders = []
    for number in range(1, self.order + 1):
      first, last = number == 1, number == self.order
      logs = uniform if first else no_log
      weights, words = jnp.zeros_like(logs), jnp.zeros_like(logs, jnp.int32)
      orders.append(
        Order(
          words_N=None if first else table("words", number, none),
          starts=None if first else table("starts", number, none),
          log_probs_N=table("log_probs", number, logs),
          log_weights_N=None if last else table("log_weights", number, weights),
          best_words_N=None if last else table("best_words", number, words),
        )
      )
    self.orders = tuple(orders)

  def __call__(
    self,
    tokens_BT: Array,
    carry: Array | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Array, Array | None]:
    """Look up the contexts that end with each token.

    Args:
      tokens_BT: int tokens.
      carry: indices of the contexts before them; None for no tokens before.
      resets_BT: true at the first token of each document, whose context is
        empty.

    Returns:
      Indices [B, T, n - 1], and those of the last token, or None if no carry
      was given.
    """
    contexts_BM = carry
    if carry is None:
      contexts_BM = self.initial_carry(len(tokens_BT), 0)
    contexts_BTM = ngram_lookup.advance(
      self.orders, tokens_BT, contexts_BM, resets_BT
    )
    return contexts_BTM, None if carry is None else contexts_BTM[:, -1]

  def logits(self, contexts_BTM: Array) -> Array:
    """Return the log-probability of every next token: [B, T, V]."""
    return ngram_lookup.log_probs(self.orders, contexts_BTM)

  def log_probs(self, contexts_BTM: Array, targets_BT: Array) -> Array:
    """Return the log-probability of each target: [B, T]."""
    return ngram_lookup.log_prob(self.orders, contexts_BTM, targets_BT)

  def cross_entropy(
    self,
    contexts_BTM: Array,
    targets_BT: Array,
    weights_BT: Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
  ) -> CrossEntropy:
    """Return sums over targets; see LanguageModel.

    `build` rejects the regularizers. If several tokens are most likely, the
    first counts as the prediction.
    """
    del label_smoothing, z_loss
    log_probs_BT = self.log_probs(contexts_BTM, targets_BT)
    # The most likely token of each context is in a table, so that accuracy
    # needs no logits [B, T, V].
    predicted_BT = ngram_lookup.best_words(self.orders, contexts_BTM)
    # Impossible targets of weight 0, as on padding, would give −∞ · 0 = NaN.
    counts_BT = weights_BT > 0
    nats = -jnp.sum(jnp.where(counts_BT, log_probs_BT * weights_BT, 0.0))
    correct = jnp.sum(weights_BT * (targets_BT == predicted_BT))
    return CrossEntropy(nats, nats, correct)

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> Array:
    """Return the carry of an empty context."""
    del capacity
    return jnp.full((batch_size, max(self.order - 1, 1)), -1, jnp.int32)

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["NGram", PyTree]:
    """Return the model and its variables unchanged."""
    del batch_size
    return self, variables

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return 0: there are no matmuls."""
    del seq_len
    return 0

  @nn.nowrap
  def estimate(
    self, tokens: np.ndarray, starts: np.ndarray, names: Sequence[str]
  ) -> dict[str, PyTree]:
    """Count and smooth the text, or load the tables from a file.

    Raises:
      UserError: if the text has no n-gram of the highest order, or the file
        cannot be read, has another order, or lacks tokens of the text.
    """
    if self.arpa:
      levels = arpa.read(Path(self.arpa), names)
      if len(levels) != self.order:
        raise UserError(
          f"model.arpa={self.arpa} has order {len(levels)}; set model.order to "
          "it."
        )
      self._check_covers(levels[0], tokens, names)
    else:
      documents = starts if self.within_documents else starts[:1]
      counts = count(tokens, self.order, self.vocab_size, documents)
      never = [names.index(name) for name in NEVER_NEXT if name in names]
      levels = self.smooth(counts, excluded=never)
    if not all(len(level.grams) for level in levels):
      raise UserError(
        f"the training text has no {self.order} tokens in a row; give more "
        "text or a smaller model.order."
      )
    return {"ngrams": _tables(levels)}

  def _check_covers(
    self, unigrams: Backoff, tokens: np.ndarray, names: Sequence[str]
  ) -> None:
    """Check that the file has every token of the text."""
    (occurring,) = count(tokens, 1, self.vocab_size)
    lacking = np.isneginf(unigrams.log_probs) & (occurring.counts > 0)
    missing = [repr(names[token]) for token in np.flatnonzero(lacking)]
    if missing:
      more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
      raise UserError(
        f"model.arpa={self.arpa} lacks tokens of the training text: "
        f"{', '.join(missing[:5])}{more}; make it from text that has them."
      )


def _tables(levels: Sequence[Backoff]) -> dict[str, np.ndarray]:
  """Convert a back-off model to the variables of NGram."""
  # Round first, so that best_tokens ranks the values that the model computes
  # with.
  levels = [
    Backoff(
      level.grams,
      level.log_probs.astype(np.float32),
      level.log_weights.astype(np.float32),
    )
    for level in levels
  ]
  tables = {}
  for number, level in enumerate(levels, 1):
    if number > 1:
      tables[f"words_{number}"] = level.grams.words
      tables[f"starts_{number}"] = level.grams.starts
    tables[f"log_probs_{number}"] = level.log_probs
    if number < len(levels):
      tables[f"log_weights_{number}"] = level.log_weights
  for number, words in enumerate(best_tokens(levels), 1):
    tables[f"best_words_{number}"] = words
  return tables


def levels_of(variables: PyTree) -> list[Backoff]:
  """Convert the variables of an NGram back to a back-off model."""
  tables = {k: np.asarray(v) for k, v in variables["ngrams"].items()}
  order = sum(name.startswith("log_probs") for name in tables)
  levels = []
  for number in range(1, order + 1):
    log_probs = tables[f"log_probs_{number}"].astype(np.float64)
    if number == 1:
      grams = unigrams(len(log_probs))
    else:
      words, starts = tables[f"words_{number}"], tables[f"starts_{number}"]
      shorter = levels[-1].grams
      # Suffixes are not stored. The suffix of an n-gram is the suffix of its
      # context, extended by its last word.
      parents = np.repeat(shorter.suffixes, np.diff(starts))
      suffixes = words if number == 2 else shorter.find(parents, words)
      grams = Grams(words, starts, suffixes.astype(np.int32))
    weights = tables.get(f"log_weights_{number}", np.zeros_like(log_probs))
    levels.append(Backoff(grams, log_probs, weights.astype(np.float64)))
  return levels


def build(config: ConfigDict, vocab_size: int) -> NGram:
  """Build the model of a config.

  Raises:
    UsageError: if the loss has regularizers.
  """
  model = config.model
  if config.loss.label_smoothing or config.loss.z_loss:
    raise UsageError(
      "model.name=ngram ignores loss.label_smoothing and loss.z_loss; set both "
      "to 0."
    )
  smooth = getattr(smoothing, model.smoothing)
  data = config.data
  settings = dict(
    add_k=dict(k=model.add_k), stupid_backoff=dict(factor=model.backoff_factor)
  )
  return NGram(
    vocab_size=vocab_size,
    order=model.order,
    smooth=functools.partial(smooth, **settings.get(model.smoothing, {})),
    arpa=model.arpa,
    # Record tasks have no such key, and finalize rejects n-gram models there.
    within_documents="reset_at_documents" in data and data.reset_at_documents,
  )
