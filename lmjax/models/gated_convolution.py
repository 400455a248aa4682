# SPDX-License-Identifier: Apache-2.0
"""The gated convolutional language model (Dauphin et al. 2017)."""

import functools

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.gated_convolution import GatedConvolution
from lmjax.models.residual_stack import ResidualStack, build_stack


def build(config: ConfigDict, vocab_size: int) -> ResidualStack:
  """Make the model that a config describes.

  One gated convolution reads the embeddings; those above stand on a residual
  stream, in bottlenecks if they have a width.

  Raises:
    UsageError: if a choice is not known or the sizes do not fit together.
  """
  model = config.model
  embedding_width = model.embedding_width or model.width
  if model.tie_embeddings and embedding_width != model.width:
    raise UsageError(
      f"model.embedding_width={embedding_width} must equal model.width="
      f"{model.width} when model.tie_embeddings is true."
    )
  if not model.conv_size:
    raise UsageError("model.conv_size=0 must be at least 1.")
  gated = functools.partial(
    GatedConvolution,
    model.width,
    size=model.conv_size,
    weight_norm=model.weight_norm,
    out_scale=model.num_layers**-0.5,
  )
  first = functools.partial(gated, bottleneck_width=0)
  block = functools.partial(gated, bottleneck_width=model.bottleneck_width)
  layers = (first, *(block,) * (model.num_layers - 1))
  stack = build_stack(model, vocab_size, layers)
  scale = 1.0 if model.norm == "none" else stack.embedding_scale
  return stack.clone(embedding_width=embedding_width, embedding_scale=scale)
