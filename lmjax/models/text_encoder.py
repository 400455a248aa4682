# SPDX-License-Identifier: Apache-2.0
"""What every encoder of texts offers, and what stands on one.

An encoder turns the tokens of a text into a vector each, in two steps, so that
something may be put beside the embeddings, or a gradient taken at them:

    x_BTE = encoder.embed(tokens_BT)
    hidden_BTD = encoder.contextualize(x_BTE, mask_BT)

What a task needs on top, a head, is a module around it: `TextModel`.
"""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


class TextEncoder(nn.Module):
  """An encoder; see above. A subclass has the two methods and these fields.

  Attributes:
    kinds: see lmjax.models.language_model.LanguageModel.
    input_width: width that x_BTE must have; None for any.
    hidden_width: width D of what comes out.
    backward_width: how many of its features, at the end, were read backward.
  """

  kinds = ("text_encoder",)

  def embed(self, tokens_BT: Array) -> Array:
    """Look tokens up, [B, T, E]."""
    raise NotImplementedError

  def contextualize(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Read vectors of tokens, [B, T, E] to [B, T, D].

    Padding, where `mask_BT` is false, changes nothing elsewhere.
    """
    raise NotImplementedError

  def __call__(self, tokens_BT: Array, mask_BT: Array) -> Array:
    """Read tokens, [B, T] to [B, T, D]."""
    return self.contextualize(self.embed(tokens_BT), mask_BT)


class TextModel(nn.Module):
  """An encoder with a head; parameters of both stand side by side.

  So an encoder's have the same paths as in a model without a head.

  Attributes:
    encoder: keeps the contract of TextEncoder.
  """

  encoder: nn.Module

  def setup(self):
    """Let the encoder's parameters be this module's."""
    nn.share_scope(self, self.encoder)

  @property
  def kinds(self) -> tuple[str, ...]:
    """What the encoder can be taken for."""
    return self.encoder.kinds

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of the matmuls."""
    return self.encoder.dtype

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what each "auto" stands for: there is none."""
    del with_resets
    return {}

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count nothing: rows are of any length."""
    del window
    return 0
