# SPDX-License-Identifier: Apache-2.0
"""Vectors of words: skip-gram, CBOW and GloVe.

Skip-gram and CBOW (Mikolov et al. 2013, arXiv:1301.3781) with negative sampling
(arXiv:1310.4546) learn from the batches of data/word_windows.py. All words of a
row meet the same N negative ones, each weighted by k / N, which has the same
mean as k samples per pair and is one matmul.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.metrics.metric import Directions
from lmjax.metrics.sums import Sums
from lmjax.tasks.task import Outcome
from lmjax.train_state import ModelState
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class WordVectorTask:
  """What the tasks on this model have in common.

  Attributes:
    model: two tables of vectors; see lmjax.models.word_vectors.
  """

  model: nn.Module

  directions: ClassVar[Directions] = {"loss": False}

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Make the model's variables from the shapes of a batch."""
    return self.model.init(key, batch["inputs"])

  def initial_carry(self, batch_size: int) -> None:
    """Remember nothing."""
    del batch_size

  def loss(
    self,
    params: PyTree,
    model_state: ModelState,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Sum the objective over a batch."""
    del rngs, train
    variables = {"params": params, **model_state.collections}
    model = self.model.bind(variables)
    return Outcome(self.sums(model, batch), model_state)

  def sums(self, model: nn.Module, batch: Batch) -> Sums:
    """Sum the objective over a batch with a model that has its variables."""
    raise NotImplementedError

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read; all means are as they are."""
    return means


@dataclasses.dataclass(frozen=True, eq=False)
class SkipGram(WordVectorTask):
  """Distinguish the context of each word from negative samples.

  The loss of a word w and a word c in its reach is

      −log σ(w·c̃) − k · mean over negative words n of log σ(−w·ñ)

  where ~ denotes context vectors.

  Attributes:
    num_negatives: k.
  """

  num_negatives: float

  def sums(self, model: nn.Module, batch: Batch) -> Sums:
    """Sum over the pairs; the weight is the number of running words."""
    words_BTD = model.words(batch["inputs"])
    contexts_BSD, negatives_BND = look_up_contexts(model, batch)
    near_BTS = near(batch["positions"], batch["reach"])
    met_BTS = jax.nn.softplus(-dots(words_BTD, contexts_BSD))
    noise_BTN = jax.nn.softplus(dots(words_BTD, negatives_BND))
    pairs_BT = near_BTS.sum(axis=-1, dtype=jnp.float32)
    loss = jnp.sum(jnp.where(near_BTS, met_BTS, 0.0))
    loss += self.num_negatives * jnp.sum(noise_BTN.mean(axis=-1) * pairs_BT)
    return Sums(loss, batch["words"].sum(), dict(pairs=pairs_BT.sum()))

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Add the loss of a pair; "loss" is a running word's."""
    means = dict(means)
    pairs = means.pop("pairs")
    return {**means, "pair_loss": means["loss"] / max(pairs, 1e-9)}


@dataclasses.dataclass(frozen=True, eq=False)
class CBOW(SkipGram):
  """Distinguish each word from negative samples by the mean of its context.

  The loss is that of skip-gram with the mean of the vectors in the word's reach
  in place of w, and the word itself as c: one pair a word.
  """

  def sums(self, model: nn.Module, batch: Batch) -> Sums:
    """Sum over the words; the weight is the number of running words."""
    words_BSD = model.words(batch["inputs"])
    targets_BTD, negatives_BND = look_up_contexts(model, batch)
    near_BTS = near(batch["positions"], batch["reach"]).astype(words_BSD.dtype)
    number_BT1 = near_BTS.sum(axis=-1, keepdims=True, dtype=jnp.float32)
    mean_BTD = jnp.einsum("BTS,BSD->BTD", near_BTS, words_BSD)
    mean_BTD = (mean_BTD / jnp.maximum(number_BT1, 1.0)).astype(words_BSD.dtype)
    score_BT = jnp.sum(mean_BTD * targets_BTD, axis=-1, dtype=jnp.float32)
    noise_BTN = jax.nn.softplus(dots(mean_BTD, negatives_BND))
    loss_BT = jax.nn.softplus(-score_BT)
    loss_BT += self.num_negatives * noise_BTN.mean(axis=-1)
    counts_BT = number_BT1[..., 0] > 0
    loss = jnp.sum(jnp.where(counts_BT, loss_BT, 0.0))
    pairs = counts_BT.sum(dtype=jnp.float32)
    return Sums(loss, batch["words"].sum(), dict(pairs=pairs))


@dataclasses.dataclass(frozen=True, eq=False)
class GloVe(WordVectorTask):
  """Fit the logarithm of how often two words occur together.

  Pennington et al. 2014: for words i and j that count X together, sum
  f(X) (w_i·w̃_j + b_i + b̃_j − log X)², with f(X) = min(1, X / x_max) ** e.

  Attributes:
    x_max: the count from which on all weigh the same.
    weight_exponent: e.
  """

  x_max: float
  weight_exponent: float

  def sums(self, model: nn.Module, batch: Batch) -> Sums:
    """Sum over the entries of the matrix; the weight is their number."""
    words_BT, contexts_BT = batch["inputs"], batch["targets"]
    counts_BT = batch["counts"]
    score_BT = model.biases(words_BT, contexts_BT) + jnp.sum(
      model.words(words_BT) * model.contexts(contexts_BT),
      axis=-1,
      dtype=jnp.float32,
    )
    is_entry_BT = counts_BT > 0
    log_BT = jnp.log(jnp.where(is_entry_BT, counts_BT, 1.0))
    share_BT = jnp.minimum(1.0, counts_BT / self.x_max)
    loss_BT = share_BT**self.weight_exponent * (score_BT - log_BT) ** 2
    weight = is_entry_BT.sum(dtype=jnp.float32)
    loss = jnp.sum(jnp.where(is_entry_BT, loss_BT, 0.0))
    return Sums(loss, weight, {})


def near(positions_BT: Array, reach_BT: Array) -> Array:
  """Tell which words lie in the reach of which, themselves left out.

  >>> near([[0, 1, 9, 10]], [[2, 1, 1, 0]])
  [[[False, True, False, False], [True, False, False, False],
    [False, False, False, True], [False, False, False, False]]]

  Returns:
    bool [B, T, S]: whether word s is a context of word t.
  """
  distance_BTS = jnp.abs(positions_BT[:, :, None] - positions_BT[:, None])
  return (distance_BTS > 0) & (distance_BTS <= reach_BT[:, :, None])


def look_up_contexts(model: nn.Module, batch: Batch) -> tuple[Array, Array]:
  """Look up a row's words as contexts, and its negative words, in one go.

  Returns:
    [B, T, D] and [B, N, D].
  """
  tokens = jnp.concatenate([batch["inputs"], batch["negatives"]], axis=1)
  vectors = model.contexts(tokens)
  width = batch["inputs"].shape[1]
  return vectors[:, :width], vectors[:, width:]


def dots(a_BTD: Array, b_BSD: Array) -> Array:
  """Multiply each vector of a row with each other one: float32 [B, T, S]."""
  return jnp.einsum(
    "BTD,BSD->BTS", a_BTD, b_BSD, preferred_element_type=jnp.float32
  )
