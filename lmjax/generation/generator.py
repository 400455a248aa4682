# SPDX-License-Identifier: Apache-2.0
"""The two protocols of generators, and the models that they are made of."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import flax.linen as nn
import jax

from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.generation.requests import Request
from lmjax.generation.results import Generated, GeneratedChunk
from lmjax.types import PyTree

# New chunks of all requests → which sequences have ended for reasons other than
# a stop token, such as a stop string.
DoneCheck = Callable[[list[GeneratedChunk]], Sequence[bool]]


class Generator(Protocol):
  """Generates whole sequences."""

  def complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
  ) -> Generated:
    """Generate one sequence per request.

    Args:
      variables: variables of the model.
      requests: at least one; all have a source, or none.
      logits_processor: maps logits to those that tokens are selected by.

    Raises:
      UsageError: if a number is out of range, or a prompt is longer than the
        model's context.
    """


class StreamingGenerator(Generator, Protocol):
  """Generates sequences in chunks."""

  def stream(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
    chunk_size: int = 0,
    is_done: DoneCheck | None = None,
    num_top_logprobs: int = 0,
  ) -> Iterator[Generated]:
    """Generate sequences in chunks until all have ended; see `complete`.

    Args:
      variables: variables of the model.
      requests: at least one; all have a source, or none.
      logits_processor: maps logits to those that are sampled from.
      chunk_size: maximum number of tokens per chunk; 0 for all.
      is_done: called after each chunk; None if only stop tokens end sequences.
      num_top_logprobs: number of most likely tokens returned per position.
    """


class ModelBinder:
  """Makes a DecodingModel for each batch size.

  Args:
    model: keeps the contract of lmjax.models.
    bidirectional_prompt: whether attention is bidirectional within a prompt.
    int8_weights: whether large matrices are stored in int8.
    caches_layout: whether the variables in the layout for decoding are kept
      between calls. This costs their memory once more, and is for variables
      that do not change.
  """

  def __init__(
    self,
    model: nn.Module,
    bidirectional_prompt: bool = False,
    int8_weights: bool = False,
    caches_layout: bool = False,
  ):
    self.model, self._bidirectional_prompt = model, bidirectional_prompt
    self._caches_layout = caches_layout
    # Batch size → the variables, and the DecodingModel made of them.
    self._cached: dict[int, tuple[PyTree, DecodingModel]] = {}

    def create(variables: PyTree, batch_size: int) -> DecodingModel:
      return DecodingModel.create(
        model, variables, batch_size, bidirectional_prompt, int8_weights
      )

    self._create = jax.jit(create, static_argnames="batch_size")

  @property
  def max_context(self) -> int | None:
    """Maximum number of tokens in a carry; None if there is no limit."""
    return self.model.max_context

  def bind(self, variables: PyTree, batch_size: int) -> DecodingModel:
    """Return the model with variables in the layout for decoding.

    Args:
      variables: variables of the model.
      batch_size: rows per decoding step.
    """
    cached, decoding_model = self._cached.get(batch_size, (None, None))
    if cached is variables:
      return decoding_model
    decoding_model = self._create(variables, batch_size=batch_size)
    if self._caches_layout:
      self._cached[batch_size] = variables, decoding_model
    return decoding_model

  def bind_for_scoring(self, variables: PyTree) -> DecodingModel:
    """Return the model with variables in the layout of training.

    That is the faster one for whole sequences.
    """
    return DecodingModel(
      self.model, variables, bidirectional_prompt=self._bidirectional_prompt
    )
