# SPDX-License-Identifier: Apache-2.0
"""A language model that remembers at test time which token followed what."""

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

_MAX_ELEMENTS = 1 << 23  # of the probabilities made at a time
_MOST = 10**9  # that users may say, which int32 and float32 hold


class Hidden(NamedTuple):
  """What the probabilities of the next token are made of."""

  model: PyTree
  found: Found


class NeuralCache(LanguageModel):
  """Any model, mixed with a cache of its own hidden vectors.

  The continuous cache of Grave et al. 2017 (arXiv:1612.04426), interpolated
  linearly: a token has the probability (1 - share) · that of the model + share
  · the sum of exp(theta · hₜ · hᵢ) over the positions i that it followed,
  normalized over those of the cache. Nothing is learned: the variables are the
  model's own. Where a model's hidden vectors are several arrays of floats they
  are joined; where there are none, as in counting models, all positions count
  alike (Kuhn & De Mori 1990).

  Attributes:
    model: the model.
    size: how many of the newest positions the cache holds.
    theta: how much similarity counts; 0 for not at all.
    share: weight of the cache, wherever it is not empty.
    keeps_memory: whether the model's own memory is part of the carry; else it
      is empty at each call, and the cache goes on alone.
  """

  model: LanguageModel
  size: int
  theta: float
  share: float
  keeps_memory: bool = True

  def setup(self):
    """Take the model's variables for this one's."""
    nn.share_scope(self, self.model)

  @property
  def max_context(self) -> int | None:
    """How many tokens the model's memory holds."""
    return self.model.max_context

  @property
  def dtype(self) -> jnp.dtype:
    """Dtype of the model's matmuls."""
    return self.model.dtype

  def __call__(
    self,
    tokens_BT: Array,
    carry: tuple[PyTree, Memory] | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Hidden, tuple[PyTree, Memory] | None]:
    """Read tokens from a carry on; see lmjax.models."""
    inner, memory = (None, None) if carry is None else carry
    hidden, inner = self.model(tokens_BT, inner, resets_BT)
    hidden_BTD = _vectors(hidden)
    if memory is None:
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
    return Hidden(hidden, found), None if carry is None else (inner, memory)

  def logits(self, hidden: Hidden) -> Array:
    """Return the logarithm of the mixed probabilities, [B, T, V]."""
    return mix(self.model.logits(hidden.model), hidden.found, self.share)

  def cross_entropy(
    self,
    hidden: Hidden,
    targets_BT: Array,
    weights_BT: Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
  ) -> CrossEntropy:
    """Sum the cross-entropy of targets, some positions at a time.

    There is nothing to train, so `loss` is `nats` whatever the regularizers.
    """
    del label_smoothing, z_loss
    batch, time = targets_BT.shape
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
      counts_BT = weights_BT > 0  # what is impossible elsewhere is no matter
      nats_BT = jnp.where(counts_BT, -target_BT1[..., 0] * weights_BT, 0.0)
      is_best_BT = jnp.all(log_probs_BTV <= target_BT1, axis=-1)
      nats = jnp.sum(nats_BT)
      sums = CrossEntropy(nats, nats, jnp.sum(is_best_BT * weights_BT))
      return jax.tree.map(jnp.add, total, sums), None

    nothing = CrossEntropy(*[jnp.zeros((), jnp.float32)] * 3)
    return jax.lax.scan(add, nothing, chunks)[0]

  @nn.nowrap
  def initial_carry(
    self, batch_size: int, capacity: int
  ) -> tuple[PyTree, Memory]:
    """Make an empty memory of the model, and an empty cache."""
    inner = None
    if self.keeps_memory:
      inner = self.model.initial_carry(batch_size, capacity)

    def vectors() -> Array:
      """Read a token, for the shape of what comes out."""
      token_BT, key = jnp.zeros((1, 1), jnp.int32), jax.random.key(0)
      (hidden, _), _ = self.model.init_with_output(key, token_BT)
      return _vectors(hidden)

    shape = jax.eval_shape(vectors)
    width, dtype = shape.shape[-1], shape.dtype
    return inner, empty_memory(batch_size, self.size, width, dtype)

  @nn.nowrap
  def rewind(
    self, carry: tuple[PyTree, Memory], num_tokens: int
  ) -> tuple[PyTree, Memory]:
    """Let the model forget; the cache loses what is read again alone."""
    inner, memory = carry
    if self.keeps_memory:
      inner = self.model.rewind(inner, num_tokens)
    return inner, rewind(memory, num_tokens)

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["NeuralCache", PyTree]:
    """Let the model lay itself out."""
    model, variables = self.model.for_decoding(variables, batch_size)
    return self.clone(model=model), variables


def _vectors(hidden: PyTree) -> Array:
  """Join all arrays of floats to [B, T, D]; D is 0 if there are none."""
  leaves = jax.tree.leaves(hidden)
  floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
  batch, time = leaves[0].shape[:2]
  if not floats:
    return jnp.zeros((batch, time, 0))
  return jnp.concatenate([x.reshape(batch, time, -1) for x in floats], axis=-1)


@dataclasses.dataclass(frozen=True)
class CacheOptions:
  """A neural cache as users ask for it; see NeuralCache.

  Attributes:
    size: how many positions it holds.
    theta: how much similarity counts.
    share: weight of the cache, λ of the paper.

  Raises:
    UsageError: if a number is out of range.
  """

  size: int
  theta: float
  share: float

  def __post_init__(self):
    """Check the numbers."""
    if self.size < 1:
      raise UsageError(f"cache_size={self.size} must be at least 1.")
    if self.size > _MOST:
      raise UsageError(f"cache_size={self.size} must be at most {_MOST:,}.")
    if not 0 <= self.theta <= _MOST:
      raise UsageError(
        f"cache_theta={self.theta} must be at least 0, and at most {_MOST:,}."
      )
    if not 0 <= self.share < 1:
      raise UsageError(
        f"cache_lambda={self.share} must be at least 0 and below 1."
      )

  def around(
    self, model: LanguageModel, keeps_memory: bool = True
  ) -> NeuralCache:
    """Give a model this cache."""
    return NeuralCache(model, self.size, self.theta, self.share, keeps_memory)
