# SPDX-License-Identifier: Apache-2.0
"""The n-gram language model: counted, not trained.

Its tables are variables of the collection "ngrams". What counts and smooths is
in lmjax.ngrams, what looks up in lmjax.ops.ngram_lookup.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lmjax.errors import UsageError, UserError
from lmjax.models.choices import check_choice
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

MAX_ORDER = 7
SMOOTHINGS = (
  "maximum_likelihood",
  "add_k",
  "stupid_backoff",
  "kneser_ney",
  "modified_kneser_ney",
)
NEVER_NEXT = ("<pad>", "<bos>")  # tokens that no text goes on with


class NGram(LanguageModel):
  """An n-gram model in back-off form.

  `hidden` is where the last 1 to n - 1 tokens are in the tables, int32
  [B, T, n - 1], and the carry is the same for the newest token: all that the
  counts know of the last n - 1 tokens. Before anything is counted, all tokens
  are equally likely.

  Attributes:
    vocab_size: number of tokens V.
    order: the n.
    smooth: counts of orders 1 to n, and as `excluded` the tokens that never
      come next, to tables.
    arpa: a file to read the tables from, instead of counting; empty for none.
    within_documents: whether grams end where a document does.
  """

  vocab_size: int
  order: int
  smooth: Callable[..., list[Backoff]]
  arpa: str = ""
  within_documents: bool = False

  kinds = ("decoder",)  # what is counted is the text as it stands
  max_context = None  # older tokens do not count
  dtype = jnp.float32

  def setup(self):
    """Create the tables."""

    def table(name: str, number: int, initial: Array) -> Array:
      return self.variable("ngrams", f"{name}_{number}", lambda: initial).value

    even = -jnp.log(jnp.full(self.vocab_size, self.vocab_size, jnp.float32))
    none, no_log = jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.float32)
    orders = []
    for number in range(1, self.order + 1):
      first, last = number == 1, number == self.order
      logs = even if first else no_log
      behind, words = jnp.zeros_like(logs), jnp.zeros_like(logs, jnp.int32)
      orders.append(
        Order(
          words_N=None if first else table("words", number, none),
          starts=None if first else table("starts", number, none),
          log_probs_N=table("log_probs", number, logs),
          log_weights_N=None if last else table("log_weights", number, behind),
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
    """Find each token with those before it in the tables.

    Args:
      tokens_BT: int tokens.
      carry: where the last tokens before them are; None for none.
      resets_BT: true where nothing before the token counts.

    Returns:
      Places [B, T, n - 1], and the last of them, or None if no carry was given.
    """
    places_BK = carry
    if carry is None:
      places_BK = self.initial_carry(len(tokens_BT), 0)
    places_BTK = ngram_lookup.advance(
      self.orders, tokens_BT, places_BK, resets_BT
    )
    return places_BTK, None if carry is None else places_BTK[:, -1]

  def logits(self, places_BTK: Array) -> Array:
    """Return the log-probability of every next token: [B, T, V]."""
    return ngram_lookup.log_probs(self.orders, places_BTK)

  def log_probs(self, places_BTK: Array, targets_BT: Array) -> Array:
    """Return the log-probability of each target: [B, T]."""
    return ngram_lookup.log_prob(self.orders, places_BTK, targets_BT)

  def cross_entropy(
    self,
    places_BTK: Array,
    targets_BT: Array,
    weights_BT: Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
  ) -> CrossEntropy:
    """Sum the cross-entropy of targets; there is nothing to regularize.

    Of several tokens that are most likely, the first is correct.
    """
    del label_smoothing, z_loss
    log_probs_BT = self.log_probs(places_BTK, targets_BT)
    best_BT = ngram_lookup.best_words(self.orders, places_BTK)
    counts_BT = weights_BT > 0  # what is impossible elsewhere is no matter
    nats = -jnp.sum(jnp.where(counts_BT, log_probs_BT * weights_BT, 0.0))
    correct = jnp.sum(weights_BT * (targets_BT == best_BT))
    return CrossEntropy(nats, nats, correct)

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> Array:
    """Make a context of no tokens."""
    del capacity
    return jnp.full((batch_size, max(self.order - 1, 1)), -1, jnp.int32)

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["NGram", PyTree]:
    """Return both as they are."""
    del batch_size
    return self, variables

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Return 0: nothing is multiplied."""
    del window
    return 0

  @nn.nowrap
  def estimate(
    self, tokens: np.ndarray, starts: np.ndarray, names: Sequence[str]
  ) -> dict[str, PyTree]:
    """Count the text and smooth, or read the tables from a file.

    Raises:
      UserError: if the text has no gram of the highest order, or the file
        cannot be read, is of another order, or lacks tokens of the text.
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
    """See that the file has each token of the text."""
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
  """Lay a back-off model out as the variables of NGram."""
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
  """Return the back-off model that the variables of an NGram hold."""
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
      parents = np.repeat(shorter.suffixes, np.diff(starts))
      suffixes = words if number == 2 else shorter.find(parents, words)
      grams = Grams(words, starts, suffixes.astype(np.int32))
    weights = tables.get(f"log_weights_{number}", np.zeros_like(log_probs))
    levels.append(Backoff(grams, log_probs, weights.astype(np.float64)))
  return levels


def build(config: ConfigDict, vocab_size: int) -> NGram:
  """Make the model that a config describes.

  Raises:
    UsageError: if a value is out of range, or training is asked for.
  """
  model = config.model
  if not 1 <= model.order <= MAX_ORDER:
    raise UsageError(
      f"model.order={model.order} must be between 1 and {MAX_ORDER}."
    )
  check_choice(model, "smoothing", SMOOTHINGS)
  if config.loss.label_smoothing or config.loss.z_loss:
    raise UsageError(
      "model.name=ngram has no use for loss.label_smoothing and loss.z_loss; "
      "set both to 0."
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
    # Records have no documents; that it learns from none is said elsewhere.
    within_documents="reset_at_documents" in data and data.reset_at_documents,
  )
