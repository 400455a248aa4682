# SPDX-License-Identifier: Apache-2.0
"""The neural cache: a language model that adapts to recent text."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.errors import UsageError
from lmjax.models.language_model import LanguageModel
from lmjax.ops.blocks import split_time
from lmjax.ops.linear_cross_entropy import CrossEntropy
from lmjax.ops.neural_cache import (
  Found,
  Memory,
  empty_memory,
  mix,
  recall,
  rewind,
)
from lmjax.types import Array, PyTree

_MAX_ELEMENTS = 1 << 23  # of the probabilities [B, t, V] computed at a time
_MAX_VALUE = 10**9  # of options; fits into int32 and float32


class Hidden(NamedTuple):
  """The two parts of the distribution over the next token.

  Attributes:
    model: hidden vectors of the model.
    found: weights and next tokens of the cache entries.
  """

  model: PyTree
  found: Found


class NeuralCache(LanguageModel):
  """A language model interpolated with a cache of its own hidden vectors.

  The continuous cache of Grave et al. 2017 (arXiv:1612.04426). The probability
  of a token w is

      (1 − λ) · p_model(w) + λ · Σ exp(θ · hₜ · hᵢ) / Z

  with the sum over the cached positions i that w followed, and Z the sum over
  all cached positions. Nothing is trained: the variables are those of the
  model. Hidden vectors in several float arrays are concatenated. Without any,
  as in n-gram models, all cached positions have equal weight: the unigram cache
  of Kuhn & De Mori 1990.

  Attributes:
    model: the language model.
    size: number of newest positions in the cache.
    theta: inverse temperature θ of the similarity; 0 for equal weights.
    weight: weight λ of the cache where it is not empty.
    carries_model: whether the carry includes that of the model. If not, each
      call starts the model from an empty carry; only the cache continues.
  """

  model: LanguageModel
  size: int
  theta: float
  weight: float
  carries_model: bool = True

  def setup(self):
    """Share the scope of the model, whose variables these are."""
    nn.share_scope(self, self.model)

  @property
  def max_context(self) -> int | None:
    """Maximum number of tokens in the carry of the model."""
    return self.model.max_context

  @property
  def dtype(self) -> jnp.dtype:
    """Dtype of the matmuls of the model."""
    return self.model.dtype

  def __call__(
    self,
    tokens_BT: Array,
    carry: tuple[PyTree, Memory] | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Hidden, tuple[PyTree, Memory] | None]:
    """Process tokens that follow those of a carry; see lmjax.models."""
    model_carry, memory = (None, None) if carry is None else carry
    hidden, model_carry = self.model(tokens_BT, model_carry, resets_BT)
    hidden_BTD = _vectors(hidden)
    if memory is None:
      # Without a carry, the entries of this call are the whole cache.
      batch, _, width = hidden_BTD.shape
      memory = empty_memory(batch, 0, width, hidden_BTD.dtype)
    found, memory = recall(
      memory,
      hidden_BTD,
      tokens_BT,
      resets_BT,
      size=self.size,
      theta=self.theta,
    )
    return Hidden(hidden, found), None if carry is None else (
      model_carry,
      memory,
    )

  def logits(self, hidden: Hidden) -> Array:
    """Return the log-probabilities of the mixture, float32 [B, T, V]."""
    return mix(self.model.logits(hidden.model), hidden.found, self.weight)

  def cross_entropy(
    self,
    hidden: Hidden,
    targets_BT: Array,
    weights_BT: Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
  ) -> CrossEntropy:
    """Return sums over targets; see LanguageModel.

    Nothing is trained, so `loss` equals `nats` and regularizers are ignored.
    """
    del label_smoothing, z_loss
    batch, time = targets_BT.shape
    # Chunks of positions, so that no array has more than _MAX_ELEMENTS.
    rows = max(_MAX_ELEMENTS // self.model.vocab_size, 1)
    num_chunks = -(-time // max(rows // batch, 1))
    chunk = -(-time // num_chunks)
    positions = (hidden, targets_BT, weights_BT)
    chunks = jax.tree.map(lambda leaf: split_time(leaf, chunk), positions)
    model, variables = self.unbind()

    def add(total: CrossEntropy, chunk: PyTree) -> tuple[CrossEntropy, None]:
      hidden, targets_BT, weights_BT = chunk
      log_probs_BTV = model.apply(variables, hidden, method="logits")
      target_BT1 = jnp.take_along_axis(
        log_probs_BTV, targets_BT[..., None], axis=-1
      )
      # Impossible targets of weight 0, as on padding, would give ∞ · 0 = NaN.
      counts_BT = weights_BT > 0
      nats_BT = jnp.where(counts_BT, -target_BT1[..., 0] * weights_BT, 0.0)
      # As argmax, except that ties count as correct.
      is_correct_BT = jnp.all(log_probs_BTV <= target_BT1, axis=-1)
      nats = jnp.sum(nats_BT)
      sums = CrossEntropy(nats, nats, jnp.sum(is_correct_BT * weights_BT))
      return jax.tree.map(jnp.add, total, sums), None

    zeros = CrossEntropy(*[jnp.zeros((), jnp.float32)] * 3)
    return jax.lax.scan(add, zeros, chunks)[0]

  @nn.nowrap
  def initial_carry(
    self, batch_size: int, capacity: int
  ) -> tuple[PyTree, Memory]:
    """Return an empty carry of the model and an empty cache."""
    model_carry = None
    if self.carries_model:
      model_carry = self.model.initial_carry(batch_size, capacity)

    def vectors() -> Array:
      token_BT, key = jnp.zeros((1, 1), jnp.int32), jax.random.key(0)
      (hidden, _), _ = self.model.init_with_output(key, token_BT)
      return _vectors(hidden)

    # The width of hidden vectors is known only from a traced call.
    shape = jax.eval_shape(vectors)
    width, dtype = shape.shape[-1], shape.dtype
    return model_carry, empty_memory(batch_size, self.size, width, dtype)

  @nn.nowrap
  def rewind(
    self, carry: tuple[PyTree, Memory], num_tokens: int
  ) -> tuple[PyTree, Memory]:
    """Rewind the model; the cache drops only the tokens processed again."""
    model_carry, memory = carry
    if self.carries_model:
      model_carry = self.model.rewind(model_carry, num_tokens)
    return model_carry, rewind(memory, num_tokens)

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["NeuralCache", PyTree]:
    """Lay out the model for decoding steps; see LanguageModel."""
    model, variables = self.model.for_decoding(variables, batch_size)
    return self.clone(model=model), variables


def _vectors(hidden: PyTree) -> Array:
  """Concatenate all float arrays to [B, T, D]; D = 0 if there are none."""
  leaves = jax.tree.leaves(hidden)
  floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
  batch, time = leaves[0].shape[:2]
  if not floats:
    return jnp.zeros((batch, time, 0))
  return jnp.concatenate([x.reshape(batch, time, -1) for x in floats], axis=-1)


@dataclasses.dataclass(frozen=True)
class CacheOptions:
  """Options of a neural cache; see NeuralCache.

  >>> model = CacheOptions(size=2000, theta=0.3, weight=0.1).wrap(model)

  Attributes:
    size: number of positions in the cache.
    theta: inverse temperature θ of the similarity.
    weight: weight λ of the cache.

  Raises:
    UsageError: if a number is out of range.
  """

  size: int
  theta: float
  weight: float

  def __post_init__(self):
    """Check the ranges."""
    if self.size < 1:
      raise UsageError(f"cache_size={self.size} must be at least 1.")
    if self.size > _MAX_VALUE:
      raise UsageError(
        f"cache_size={self.size} must be at most {_MAX_VALUE:,}."
      )
    if not 0 <= self.theta <= _MAX_VALUE:
      raise UsageError(
        f"cache_theta={self.theta} must be at least 0 and at most "
        f"{_MAX_VALUE:,}."
      )
    if not 0 <= self.weight < 1:
      raise UsageError(
        f"cache_lambda={self.weight} must be at least 0 and below 1."
      )

  def wrap(
    self, model: LanguageModel, carries_model: bool = True
  ) -> NeuralCache:
    """Return a model with this cache."""
    return NeuralCache(model, self.size, self.theta, self.weight, carries_model)
