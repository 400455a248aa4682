# SPDX-License-Identifier: Apache-2.0
"""Text in, text out: a model, its tokenizer and the generation loop."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import BOS, EOS, PAD, UNK, Tokenizer
from lmjax.decoding.filters import (
  Ban,
  Filter,
  Greedy,
  Temperature,
  TopK,
  TopP,
  chain,
)
from lmjax.decoding.generate import generate
from lmjax.errors import UsageError
from lmjax.types import Array, PyTree


class TextSampler:
  """Draw text from a language model.

  Args:
    model: keeps the contract of lmjax.models.
    tokenizer: the one that it was trained with.
    reads_prefix: whether the model reads prompts in both directions, as prefix
      language modelling teaches it.
    writes_marks: whether the tokenizer's extras may be drawn.
    opens_documents: whether prompts begin a document, behind `<eos>`, as those
      of training do where memory is emptied at documents.
  """

  def __init__(
    self,
    model: nn.Module,
    tokenizer: Tokenizer,
    reads_prefix: bool = False,
    writes_marks: bool = False,
    opens_documents: bool = False,
  ):
    self._model, self._tokenizer = model, tokenizer
    self._reads_prefix = reads_prefix
    self._opens_documents = opens_documents
    self._ban = Ban((PAD, UNK, BOS) if writes_marks else no_text(tokenizer))
    self._generate = jax.jit(
      self._draw, static_argnames=("num_tokens", "filters")
    )

  def __call__(
    self,
    variables: PyTree,
    prompt: str,
    num_tokens: int = 200,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
  ) -> list[str]:
    """Continue a prompt.

    Args:
      variables: the model's variables.
      prompt: text to go on from; an empty one stands for the begin of a
        document.
      num_tokens: how many tokens to draw at most; `<eos>` ends a sample.
      num_samples: how many continuations.
      temperature: 0 takes the most likely token always.
      top_k: how many tokens to choose among; 0 for all.
      top_p: probability of the tokens to choose among.
      seed: the same seed draws the same text; sample i does not depend on how
        many there are.

    Returns:
      The continuations, without the prompt.

    Raises:
      UsageError: if a number is out of range, or the prompt is longer than the
        model's context.
    """
    filters = make_filters(temperature, top_k, top_p)
    drawn = self.draw(
      variables, self.encode(prompt), num_tokens, num_samples, filters, seed
    )
    return [self._tokenizer.decode(tokens) for tokens in drawn]

  def draw(
    self,
    variables: PyTree,
    tokens: np.ndarray,
    num_tokens: int,
    num_samples: int,
    filters: tuple[Filter, ...],
    seed: int,
    sources: np.ndarray | None = None,
  ) -> list[list[int]]:
    """Continue tokens.

    Args:
      variables: the model's variables.
      tokens: tokens to go on from, at least one.
      num_tokens: see `__call__`, as for the other arguments.
      num_samples: how many continuations.
      filters: what `make_filters` returns.
      seed: seed of the draws.
      sources: tokens of the text that an encoder–decoder reads; None for other
        models.

    Returns:
      The continuations, without `<eos>`.

    Raises:
      UsageError: if a number is out of range, or the tokens are more than the
        model's context holds.
    """
    check_positive(num_tokens=num_tokens, num_samples=num_samples)
    check_length(self._model, tokens)
    drawn = self._generate(
      variables,
      jnp.asarray(tokens, jnp.int32),
      jax.random.split(jax.random.key(seed), num_samples),
      None if sources is None else jnp.asarray(sources, jnp.int32),
      num_tokens=num_tokens,
      filters=(self._ban, *filters),
    )
    return [_until_eos(row) for row in np.array(drawn)]

  def encode(self, prompt: str) -> np.ndarray:
    """Turn a prompt into tokens; without any, it is the end of a document.

    Raises:
      UsageError: if it is longer than the model's context.
    """
    tokens = self._tokenizer.encode(prompt)
    if self._opens_documents or not len(tokens):
      tokens = np.array([EOS, *tokens])
    check_length(self._model, tokens)
    return tokens

  def _draw(
    self,
    variables: PyTree,
    prompt_T: Array,
    keys_B: Array,
    sources_S: Array | None,
    num_tokens: int,
    filters: tuple[Filter, ...],
  ) -> Array:
    model, variables = self._model.for_decoding(variables, len(keys_B))
    context = model.context
    needed = len(prompt_T) + num_tokens
    capacity = min(needed, context or needed)
    memory = {}
    if sources_S is not None:
      sources_BS = jnp.broadcast_to(sources_S, (len(keys_B), len(sources_S)))
      memory["memory"] = model.apply(variables, sources_BS, method="encode")

    def step(tokens_BT: Array, carry: PyTree) -> tuple[Array, PyTree]:
      options = dict(memory)
      if self._reads_prefix and tokens_BT.shape[1] > 1:
        options["bidirectional_BT"] = jnp.ones(tokens_BT.shape, bool)
      hidden, carry = model.apply(variables, tokens_BT, carry, **options)
      last = jax.tree.map(lambda leaf: leaf[:, -1:], hidden)
      return model.apply(variables, last, method="logits")[:, 0], carry

    return generate(
      step,
      model.initial_carry(len(keys_B), capacity),
      model.rewind,
      jnp.broadcast_to(prompt_T, (len(keys_B), len(prompt_T))),
      keys_B,
      num_tokens,
      chain(filters),
      context=context,
      stop_token=EOS,
      pad_token=PAD,
    )


# Task → what goes on from a text with a model that learned it.
SAMPLERS = {
  "language_modeling": TextSampler,
  "prefix_lm": functools.partial(TextSampler, reads_prefix=True),
  "fill_in_the_middle": TextSampler,
}


def make_filters(
  temperature: float, top_k: int, top_p: float
) -> tuple[Filter, ...]:
  """Turn the usual numbers into filters, in the usual order.

  Raises:
    UsageError: if one is out of range.
  """
  if temperature < 0:
    raise UsageError(f"temperature={temperature} must be at least 0.")
  if top_k < 0:
    raise UsageError(f"top_k={top_k} must be at least 0.")
  if not 0 < top_p <= 1:
    raise UsageError(f"top_p={top_p} must be above 0 and at most 1.")
  filters = [Temperature(temperature) if temperature else Greedy()]
  if top_k:
    filters.append(TopK(top_k))
  if top_p < 1:
    filters.append(TopP(top_p))
  return tuple(filters)


def no_text(tokenizer: Tokenizer) -> tuple[int, ...]:
  """List the tokens that no text holds; `<eos>` ends it and is not listed."""
  return (PAD, UNK, BOS, *range(tokenizer.num_plain, tokenizer.vocab_size))


def check_length(model: nn.Module, tokens: np.ndarray) -> None:
  """See that a model's context holds a prompt.

  Raises:
    UsageError: if it does not.
  """
  if model.context is not None and len(tokens) > model.context:
    raise UsageError(
      f"the prompt has {len(tokens)} tokens and the model's context holds "
      f"{model.context}; shorten the prompt."
    )


def check_positive(**numbers: int) -> None:
  """See that numbers are at least 1.

  Raises:
    UsageError: naming the first that is not.
  """
  for name, number in numbers.items():
    if number < 1:
      raise UsageError(f"{name}={number} must be at least 1.")


def _until_eos(tokens: np.ndarray) -> list[int]:
  ends = np.flatnonzero(tokens == EOS)
  return tokens[: ends[0]].tolist() if len(ends) else tokens.tolist()
