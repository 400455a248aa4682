# SPDX-License-Identifier: Apache-2.0
"""The gated convolutional language model.

Causal convolutions with gated linear units (Dauphin et al. 2016,
arXiv:1612.08083).
"""

import functools

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.gated_convolution import GatedConvolution
from lmjax.models.residual_stack import ResidualStack, build_stack


def build(config: ConfigDict, vocab_size: int) -> ResidualStack:
  """Build the model of a config with model.name=gated_convolution.

  The first convolution maps the embeddings to the model width; the others are
  residual, with a bottleneck if model.bottleneck_width is set.

  Raises:
    UsageError: if tied embeddings do not have the model width.
  """
  model = config.model
  embedding_width = model.embedding_width or model.width
  if model.tie_embeddings and embedding_width != model.width:
    raise UsageError(
      f"model.embedding_width={embedding_width} must equal model.width="
      f"{model.width} when model.tie_embeddings is true."
    )
  gated = functools.partial(
    GatedConvolution,
    model.width,
    size=model.conv_size,
    weight_norm=model.weight_norm,
    # The sum of num_layers residual layers then has the variance of one.
    out_scale=model.num_layers**-0.5,
  )
  # A bottleneck saves weights between equal widths; the first layer maps the
  # embeddings to the model width.
  first = functools.partial(gated, bottleneck_width=0)
  block = functools.partial(gated, bottleneck_width=model.bottleneck_width)
  layers = (first, *(block,) * (model.num_layers - 1))
  stack = build_stack(model, vocab_size, layers)
  # Without norms nothing rescales small embeddings, so start at unit variance.
  scale = 1.0 if model.norm == "none" else stack.embedding_scale
  return stack.clone(embedding_width=embedding_width, embedding_scale=scale)
