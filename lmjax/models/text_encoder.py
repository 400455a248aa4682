# SPDX-License-Identifier: Apache-2.0
"""Interfaces of text encoders and of the heads on top of them.

A text encoder maps tokens to hidden vectors in two steps, so that a head can
concatenate features to the embeddings, and explainers can differentiate with
respect to them:

    x_BTE = encoder.embed(tokens_BT)
    hidden_BTD = encoder.contextualize(x_BTE, mask_BT)

The head of a task, such as a classifier, is a module around it: `TextModel`.
"""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


class TextEncoder(nn.Module):
  """Base class of text encoders.

  A subclass defines `embed`, `contextualize` and these attributes.

  Attributes:
    kinds: see lmjax.models.language_model.LanguageModel.
    input_width: width that x_BTE must have; None for any.
    hidden_width: width D of the hidden vectors.
    backward_width: number of features, at the end, of a backward recurrent
      layer. Their summary of a text is at its first token, not at its last.
  """

  kinds = ("text_encoder",)

  def embed(self, tokens_BT: Array) -> Array:
    """Return the token embeddings, [B, T, E]."""
    raise NotImplementedError

  def contextualize(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Transform token embeddings, [B, T, E] to [B, T, D].

    Args:
      x_BTE: token embeddings.
      mask_BT: false on padding, which no other position depends on.
    """
    raise NotImplementedError

  def __call__(self, tokens_BT: Array, mask_BT: Array) -> Array:
    """Encode tokens, int [B, T] to [B, T, D]."""
    return self.contextualize(self.embed(tokens_BT), mask_BT)


class TextModel(nn.Module):
  """Base class of an encoder with a head.

  Attributes:
    encoder: has the interface of TextEncoder.
  """

  encoder: nn.Module

  def setup(self):
    """Share the scope of the encoder."""
    # The encoder's parameters have the paths of a model without a head, so a
    # pretrained encoder can initialize a classifier.
    nn.share_scope(self, self.encoder)

  @property
  def kinds(self) -> tuple[str, ...]:
    """Kinds of the encoder."""
    return self.encoder.kinds

  @property
  def dtype(self) -> jnp.dtype:
    """Dtype of the matmuls."""
    return self.encoder.dtype

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return nothing: no setting is "auto"."""
    del with_resets
    return {}

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return 0: FLOPs are not counted for rows of varying length."""
    del seq_len
    return 0
