# SPDX-License-Identifier: Apache-2.0
"""A model bound to its variables, as all decoding algorithms use it."""

import dataclasses
from typing import Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.ops.int8 import dense_weights, quantize_weights
from lmjax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class DecodingModel:
  """A language model with its variables and, optionally, an encoded source.

  This is the only place where decoding applies a model to tokens. Whether
  weights are stored in int8, whether prompts are read with bidirectional
  attention, and which source an encoder–decoder attends to are decided when the
  object is made, so the algorithms need not know of any of them.

  It is a pytree: variables and source are leaves, the model is static. A
  function jitted over a DecodingModel is therefore compiled once per model and
  shape.

  Attributes:
    model: keeps the contract of lmjax.models.
    variables: variables of the model, possibly quantized.
    memory: output of the encoder; None for models without an encoder.
    source_mask_BS: False at the padding of sources.
    bidirectional_prompt: whether attention is bidirectional within a prompt
      (prefix LM).
  """

  model: nn.Module
  variables: PyTree
  memory: PyTree = None
  source_mask_BS: Array | None = None
  bidirectional_prompt: bool = False

  @classmethod
  def create(
    cls,
    model: nn.Module,
    variables: PyTree,
    batch_size: int,
    bidirectional_prompt: bool = False,
    int8_weights: bool = False,
  ) -> Self:
    """Convert variables to the layout that is fastest for decoding.

    Args:
      model: keeps the contract of lmjax.models.
      variables: variables of the model, as trained.
      batch_size: rows per decoding step, on which the best layout depends.
      bidirectional_prompt: see above.
      int8_weights: whether to store large matrices in int8.
    """
    model, variables = model.for_decoding(variables, batch_size)
    if int8_weights:
      variables = quantize_weights(variables)
    return cls(model, variables, bidirectional_prompt=bidirectional_prompt)

  @property
  def max_context(self) -> int | None:
    """Maximum number of tokens in a carry; None if there is no limit."""
    return self.model.max_context

  def encode_source(
    self, sources_BS: Array | None, mask_BS: Array | None
  ) -> Self:
    """Bind the sources that the decoder attends to; None leaves it unchanged.

    Args:
      sources_BS: int tokens.
      mask_BS: False at padding.
    """
    if sources_BS is None:
      return self
    memory = self._apply(sources_BS, mask_BS, method="encode")
    return dataclasses.replace(self, memory=memory, source_mask_BS=mask_BS)

  def repeat(self, times: int) -> Self:
    """Repeat each source, for several hypotheses per row.

    Row b · `times` + n then attends to source b.
    """
    memory, mask_BS = jax.tree.map(
      lambda leaf: jnp.repeat(leaf, times, axis=0),
      (self.memory, self.source_mask_BS),
    )
    return dataclasses.replace(self, memory=memory, source_mask_BS=mask_BS)

  def initial_carry(self, batch_size: int, capacity: int) -> PyTree:
    """Return an empty carry with room for `capacity` tokens per row."""
    return self.model.initial_carry(batch_size, capacity)

  def forward(
    self, tokens_BT: Array, carry: PyTree, resets_BT: Array | None = None
  ) -> tuple[PyTree, PyTree]:
    """Process tokens.

    Args:
      tokens_BT: int tokens.
      carry: the carry before them.
      resets_BT: True at the first token of a document, which cannot see any
        earlier token; None if there is none.

    Returns:
      The hidden states (a pytree of leaves [B, T, ...]) and the carry after the
      tokens.
    """
    options = self._source_options()
    if self.bidirectional_prompt and tokens_BT.shape[1] > 1:
      options["bidirectional_BT"] = jnp.ones(tokens_BT.shape, bool)
    return self._apply(tokens_BT, carry, resets_BT, **options)

  def prefill(
    self, tokens_BT: Array, carry: PyTree, resets_BT: Array | None = None
  ) -> tuple[Array, PyTree]:
    """Process prompts; see `forward`.

    Returns:
      The logits [B, V] after the last token, and the carry.
    """
    hidden, carry = self.forward(tokens_BT, carry, resets_BT)
    return self.last_logits(hidden), carry

  def decode_step(self, token_B: Array, carry: PyTree) -> tuple[Array, PyTree]:
    """Process one token per row; return the logits [B, V] and the carry."""
    return self.prefill(token_B[:, None], carry)

  def extend(
    self, tokens_BT: Array, carry: PyTree
  ) -> tuple[Array, PyTree, PyTree]:
    """Process several tokens such that `rollback` can undo the last ones.

    Returns:
      The logits [B, T, V] after each token, the carry after all tokens, and a
      snapshot of the carry after each token: leaves [T, B, ...].
    """
    hidden, carry, snapshots = self._apply(
      tokens_BT, carry, **self._source_options(), method="extend"
    )
    return self._apply(hidden, method="logits"), carry, snapshots

  def rollback(self, carry: PyTree, snapshot: PyTree) -> PyTree:
    """Restore the carry of a snapshot [B, ...]; see `extend`."""
    return self.model.rollback(carry, snapshot)

  def refill(self, recent_BT: Array, carry: PyTree) -> tuple[Array, PyTree]:
    """Replace a full context by its newest tokens.

    Args:
      recent_BT: the newest tokens of the text.
      carry: a carry that holds `max_context` tokens.

    Returns:
      The logits [B, V] after the last token, and the carry, with room again.
    """
    carry = self.model.rewind(carry, recent_BT.shape[1])
    return self.prefill(recent_BT, carry)

  def last_logits(self, hidden: PyTree) -> Array:
    """Return the logits [B, V] of the last of the hidden states."""
    # The output layer is applied to one position only: for all of them, the
    # logits of a prompt would be the largest array of the program.
    last = jax.tree.map(lambda leaf: leaf[:, -1:], hidden)
    return self._apply(last, method="logits")[:, 0]

  def log_probs(
    self, inputs_BT: Array, targets_BT: Array, prompt_lengths_B: Array
  ) -> Array:
    """Score tokens of whole sequences, without a carry.

    Args:
      inputs_BT: int tokens, padded at the end.
      targets_BT: the token after each of them.
      prompt_lengths_B: number of prompt tokens per row.

    Returns:
      Log-probabilities of the targets in nats, float32 [B, T].
    """
    options = self._source_options()
    if self.bidirectional_prompt:
      columns_T = jnp.arange(inputs_BT.shape[1])
      options["bidirectional_BT"] = columns_T < prompt_lengths_B[:, None]
    hidden, _ = self._apply(inputs_BT, **options)
    return self._apply(hidden, targets_BT, method="log_probs")

  def _source_options(self) -> dict[str, PyTree]:
    return {} if self.memory is None else dict(memory=self.memory)

  def _apply(self, *args: PyTree, **options: PyTree) -> PyTree:
    # Weights are dequantized at every use, not once before the decoding loop:
    # int8 in memory is what makes a step faster.
    return self.model.apply(dense_weights(self.variables), *args, **options)


def _flatten(each: DecodingModel) -> tuple[tuple, tuple]:
  leaves = each.variables, each.memory, each.source_mask_BS
  return leaves, (each.model, each.bidirectional_prompt)


def register(cls: type) -> type:
  """Register DecodingModel or a subclass as a pytree."""

  def unflatten(static: tuple, leaves: tuple) -> DecodingModel:
    model, bidirectional_prompt = static
    return cls(model, *leaves, bidirectional_prompt)

  jax.tree_util.register_pytree_node(cls, _flatten, unflatten)
  return cls


register(DecodingModel)
