# SPDX-License-Identifier: Apache-2.0
"""The interface of every autoregressive model, with its defaults."""

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
  """Base class of models that predict the next token.

  A subclass defines `__call__(tokens_BT, carry, resets_BT) → (hidden, carry)`,
  `initial_carry`, `dtype`, and `max_context`: the maximum number of tokens in a
  carry, or None for no limit.

  The defaults here are for models whose logits are a table times a hidden
  vector: submodules `embedding` and, unless `tie_embeddings`, `output`. Other
  models override `logits` and `cross_entropy`; their `hidden` may be any tree
  whose leaves have leading axes [B, T].

  Attributes:
    kinds: which tasks the model can learn. "decoder": each token attends to
      earlier ones only. "infiller": a decoder trained on batches whose text may
      be rearranged (fill-in-the-middle). "prefix_decoder": `__call__` takes
      `bidirectional_BT`. "encoder": tokens attend in both directions.
      "encoder_decoder": has `encode`.
  """

  kinds = ("decoder", "infiller")

  def unembedding(self) -> Unembedding:
    """Return the weights of the output layer: table_VD, and bias_V or None."""
    layer = self.embedding if self.tie_embeddings else self.output
    return layer.unembedding()

  def logits(self, hidden_BTD: Array) -> Array:
    """Return the logits of the next token: [B, T, D] to float32 [B, T, V]."""
    return make_logits(hidden_BTD, self.unembedding())

  def log_probs(self, hidden: PyTree, targets_BT: Array) -> Array:
    """Return the log-probability of each target in nats: float32 [B, T]."""

    def one_step(inputs: tuple[PyTree, Array]) -> Array:
      hidden, target_B = inputs
      logits_B1V = self.logits(jax.tree.map(lambda x: x[:, None], hidden))
      log_probs_BV = jax.nn.log_softmax(logits_B1V[:, 0], axis=-1)
      return jnp.take_along_axis(log_probs_BV, target_B[:, None], 1)[:, 0]

    # One position at a time: logits [B, T, V] of all positions would need more
    # memory than the rest of the model.
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
    """Return sums over targets in nats, without storing logits [B, T, V].

    Args:
      hidden_BTD: what `__call__` returned.
      targets_BT: int next tokens.
      weights_BT: weight of each target; 0 on padding.
      label_smoothing: probability moved from targets to a uniform distribution.
      z_loss: weight of the squared log-normalizer.

    Returns:
      The sums; see lmjax.ops.linear_cross_entropy.
    """
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
    """Return an empty carry with room for `capacity` tokens."""
    raise NotImplementedError

  @nn.nowrap
  def rewind(self, carry: PyTree, num_tokens: int) -> PyTree:
    """Return a carry for processing the newest tokens again.

    Generation continues this way when the context is full: it drops the carry
    and processes the newest tokens again, as the only context.

    Args:
      carry: a carry of `max_context` tokens.
      num_tokens: number of newest tokens that will be processed again.
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
    # jax.lax.scan needs a pure function, so apply an unbound copy.
    model, variables = self.unbind()

    def step(carry: PyTree, token_B: Array) -> tuple[PyTree, PyTree]:
      hidden, carry = model.apply(variables, token_B[:, None], carry, **options)
      hidden = jax.tree.map(lambda leaf: leaf[:, 0], hidden)
      return carry, (hidden, model.snapshot(carry))

    carry, (hidden, snapshots) = jax.lax.scan(step, carry, tokens_BT.T)
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
    """Return a model and variables laid out for decoding steps.

    Both compute the same as before. Subclasses transpose or unstack kernels
    where a single token makes another layout faster.

    Args:
      variables: variables of this model.
      batch_size: number of rows B of a decoding step.
    """
    del batch_size
    # A decoding step reads the whole table, which is often the largest array:
    # cast it once instead of at every step.

    def cast(name: str, leaf: Array) -> Array:
      is_table = re.search(r"^params/(embedding/embedding|output/table)$", name)
      return leaf.astype(self.dtype) if is_table else leaf

    return self, map_named(cast, variables)

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return what each "auto" resolves to, by config key.

    Args:
      with_resets: whether batches have document resets.
    """
    del with_resets
    return {}

  @nn.nowrap
  def estimate(
    self, tokens: np.ndarray, starts: np.ndarray, names: Sequence[str]
  ) -> dict[str, PyTree]:
    """Return the variables that are estimated by counting, not by gradients.

    Args:
      tokens: the training text, [N], memory-mapped.
      starts: sorted positions of the first tokens of documents.
      names: the string of each token of the vocabulary.

    Returns:
      Collections of NumPy arrays, of any shape, that replace those of `init`;
      none for most models.
    """
    del tokens, starts, names
    return {}

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per token of the forward pass.

    Args:
      seq_len: sequence length T, which attention depends on.
    """
    raise NotImplementedError
