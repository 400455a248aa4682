# SPDX-License-Identifier: Apache-2.0
"""The LSTM language model."""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from lmjax.models.stack import Stack


def build(config: ConfigDict, vocab_size: int) -> Stack:
  """Make the model that a config describes.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model, data = config.model, config.data
  embedding_width = model.embedding_width or model.width
  if model.tie_embeddings and embedding_width != model.width:
    raise UsageError(
      f"model.embedding_width={embedding_width} must equal model.width="
      f"{model.width} when model.tie_embeddings is true."
    )
  if model.implementation not in IMPLEMENTATIONS:
    raise UsageError(
      f"model.implementation={model.implementation} is not known; choose one "
      f"of {', '.join(IMPLEMENTATIONS)}."
    )
  if model.implementation == "cudnn" and (
    jax.default_backend() != "gpu"
    or model.dtype != "float32"
    or data.reset_at_documents
    or data.order == "stateful"
  ):
    raise UsageError(
      "model.implementation=cudnn needs an NVIDIA GPU, model.dtype=float32, "
      "data.reset_at_documents=false and data.order=stateless; choose auto."
    )
  layer = functools.partial(
    RecurrentLayer,
    "lstm",
    model.width,
    implementation=model.implementation,
  )
  return Stack(
    vocab_size=vocab_size,
    embedding_width=embedding_width,
    make_layers=(layer,) * model.num_layers,
    dropout=model.dropout,
    tie_embeddings=model.tie_embeddings,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
