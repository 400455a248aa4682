# SPDX-License-Identifier: Apache-2.0
"""The text classification head."""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.dropout import Dropout
from lmjax.layers.pooling import Pooling
from lmjax.models.text_encoder import TextModel
from lmjax.types import Array


class TextClassifier(TextModel):
  """Text encoder, pooling and a linear classifier.

  Attributes:
    num_labels: number of classes C.
    pooling: one of POOLINGS.
    dropout: dropout rate of the pooled features.
  """

  num_labels: int
  pooling: str
  dropout: float

  def setup(self):
    """Create the head."""
    super().setup()
    dtypes = dict(
      dtype=self.encoder.dtype, param_dtype=self.encoder.param_dtype
    )
    self.pool = Pooling(self.pooling, self.encoder.backward_width, **dtypes)
    self.drop_pooled = Dropout(self.dropout)
    self.classifier = nn.Dense(self.num_labels, **dtypes)

  def __call__(self, tokens_BT: Array, mask_BT: Array) -> Array:
    """Return the logits of the classes, float32 [B, C]."""
    return self.scores(self.encoder.embed(tokens_BT), mask_BT)

  def scores(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Return the logits from token embeddings, [B, T, E] to float32 [B, C].

    Explainers differentiate this with respect to the embeddings.
    """
    hidden_BTD = self.encoder.contextualize(x_BTE, mask_BT)
    pooled_BD = self.drop_pooled(self.pool(hidden_BTD, mask_BT))
    return self.classifier(pooled_BD).astype(jnp.float32)


def build(
  config: ConfigDict, encoder: nn.Module, num_labels: int = 2
) -> TextClassifier:
  """Add a classification head to an encoder."""
  options = config.classification
  return TextClassifier(encoder, num_labels, options.pooling, options.dropout)
