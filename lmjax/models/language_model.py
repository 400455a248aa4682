# SPDX-License-Identifier: Apache-2.0
"""What every language model offers; its file states what is its own."""

import re
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.layers.embeddings import Unembedding, make_logits
from lmjax.ops.linear_cross_entropy import CrossEntropy, linear_cross_entropy
from lmjax.tree import map_named
from lmjax.types import Array, PyTree


class LanguageModel(nn.Module):
  """A model that reads tokens and scores the next ones.

  A subclass has `__call__(tokens_BT, carry, resets_BT) → (hidden, carry)`,
  `initial_carry`, `dtype`, and `max_context`: the maximum number of tokens that
  a carry holds, or None for no limit. The rest is here for models whose logits
  are a table times a hidden vector: modules named `embedding` and, unless
  `tie_embeddings`, `output`. A model that scores in another way overrides
  `logits` and `cross_entropy`; what `hidden` is, is then its own affair, as
  long as the axes of every leaf begin with batch and time.

  Attributes:
    kinds: what the model can be taken for: "decoder", which sees the tokens
      before each alone; "infiller", a decoder that learns from batches, in
      which text may be rearranged; "prefix_decoder", whose call takes
      `bidirectional_BT`; "encoder", which sees all; "encoder_decoder", which
      has `encode`.
  """

  kinds = ("decoder", "infiller")

  def unembedding(self) -> Unembedding:
    """Return what scores the next token: table_VD, and bias_V or None."""
    layer = self.embedding if self.tie_embeddings else self.output
    return layer.unembedding()

  def logits(self, hidden_BTD: Array) -> Array:
    """Score every next token: [B, T, D] to float32 [B, T, V]."""
    return make_logits(hidden_BTD, self.unembedding())

  def log_probs(self, hidden: PyTree, targets_BT: Array) -> Array:
    """Score one next token at each position, in nats: float32 [B, T].

    Step by step, for the scores of all tokens would be large.
    """

    def one_step(inputs: tuple[PyTree, Array]) -> Array:
      hidden, target_B = inputs
      logits_B1V = self.logits(jax.tree.map(lambda x: x[:, None], hidden))
      log_probs_BV = jax.nn.log_softmax(logits_B1V[:, 0], axis=-1)
      return jnp.take_along_axis(log_probs_BV, target_B[:, None], 1)[:, 0]

    by_time = jax.tree.map(
      lambda x: jnp.swapaxes(x, 0, 1), (hidden, targets_BT)
    )
    return jax.lax.map(one_step, by_time).T

  def cross_entropy(
    self,
    hidden_BTD: Array,
    targets_BT: Array,
    weights_BT: Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
  ) -> CrossEntropy:
    """Sum the cross-entropy of targets; see linear_cross_entropy."""
    table_VD, bias_V = self.unembedding()
    return linear_cross_entropy(
      hidden_BTD,
      table_VD,
      targets_BT,
      weights_BT,
      bias_V,
      label_smoothing=label_smoothing,
      z_loss=z_loss,
    )

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> PyTree:
    """Make an empty carry that can hold `capacity` tokens."""
    raise NotImplementedError

  @nn.nowrap
  def rewind(self, carry: PyTree, num_tokens: int) -> PyTree:
    """Make a carry behind which the newest tokens are to be read again.

    So generation goes on when no token fits into the context any more. All
    tokens are forgotten, those before the newest for good.

    Args:
      carry: a carry of `max_context` tokens.
      num_tokens: how many of the tokens that it has read will be read again.
    """
    del num_tokens
    batch_size = len(jax.tree.leaves(carry)[0])
    return self.initial_carry(batch_size, self.max_context)

  def extend(
    self, tokens_BT: Array, carry: PyTree, **options: PyTree
  ) -> tuple[PyTree, PyTree, PyTree]:
    """Process several tokens such that `rollback` can undo the last ones.

    The default processes them one by one, which works for any kind of carry.

    Args:
      tokens_BT: int tokens.
      carry: the carry before these tokens.
      **options: further arguments of `__call__`.

    Returns:
      hidden, the carry after all tokens, and a snapshot of the carry after each
      token, stacked along a new first axis: leaves [T, B, ...].
    """
    model, variables = self.unbind()

    def read(carry: PyTree, token_B: Array) -> tuple[PyTree, PyTree]:
      hidden, carry = model.apply(variables, token_B[:, None], carry, **options)
      hidden = jax.tree.map(lambda leaf: leaf[:, 0], hidden)
      return carry, (hidden, model.snapshot(carry))

    carry, (hidden, snapshots) = jax.lax.scan(read, carry, tokens_BT.T)
    hidden = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), hidden)
    return hidden, carry, snapshots

  @nn.nowrap
  def snapshot(self, carry: PyTree) -> PyTree:
    """Return what `rollback` needs to restore a carry; leaves [B, ...]."""
    return carry

  @nn.nowrap
  def rollback(self, carry: PyTree, snapshot: PyTree) -> PyTree:
    """Restore an earlier carry.

    Args:
      carry: a later carry, which has not exceeded its capacity since.
      snapshot: the snapshot of the earlier carry; rows may be rolled back by
        different numbers of tokens.
    """
    del carry
    return snapshot

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["LanguageModel", PyTree]:
    """Lay variables out for one token at a time.

    The table is cast once: the largest array of most models, read at every
    step.
    """
    del batch_size

    def cast(name: str, leaf: Array) -> Array:
      is_table = re.search(r"^params/(embedding/embedding|output/table)$", name)
      return leaf.astype(self.dtype) if is_table else leaf

    return self, map_named(cast, variables)

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what each "auto" stands for here."""
    del with_resets
    return {}

  @nn.nowrap
  def estimate(
    self, tokens: np.ndarray, starts: np.ndarray, names: Sequence[str]
  ) -> dict[str, PyTree]:
    """Make the variables that come from the training text by counting.

    Args:
      tokens: the text, [N], mapped from disk.
      starts: where its documents begin, sorted.
      names: the string of each token of the vocabulary.

    Returns:
      Collections of NumPy arrays, of any shape, that stand in the place of
      those that `init` makes; none for most models.
    """
    del tokens, starts, names
    return {}

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    raise NotImplementedError
