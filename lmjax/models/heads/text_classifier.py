# SPDX-License-Identifier: Apache-2.0
"""From a text to a score for each class."""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.dropout import Dropout
from lmjax.layers.pooling import Pooling
from lmjax.models.text_encoder import TextModel
from lmjax.types import Array


class TextClassifier(TextModel):
  """An encoder, pooling, and one affine map.

  Attributes:
    num_labels: number of classes C.
    pooling: one of POOLINGS.
    dropout: share of the pooled features that is dropped.
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
    """Score the classes of texts: float32 [B, C]."""
    return self.scores(self.encoder.embed(tokens_BT), mask_BT)

  def scores(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Score the classes from embeddings on."""
    hidden_BTD = self.encoder.contextualize(x_BTE, mask_BT)
    pooled_BD = self.drop_pooled(self.pool(hidden_BTD, mask_BT))
    return self.classifier(pooled_BD).astype(jnp.float32)


def build(
  config: ConfigDict, encoder: nn.Module, num_labels: int = 2
) -> TextClassifier:
  """Put a head on an encoder.

  Raises:
    UsageError: if a choice is not known.
  """
  options = config.classification
  return TextClassifier(encoder, num_labels, options.pooling, options.dropout)
