# SPDX-License-Identifier: Apache-2.0
"""The base class of logits processors, and their composition.

A processor maps the logits of the next token to other logits; a token with
logit −∞ is never generated. Processors compose from left to right (see
`Chain`), in the order given in lmjax.decoding.logits_processors. What a
processor must know about a text, such as how often each token occurred, is its
own state: it is created from the prompt and updated with every generated token.
Processors therefore know nothing of each other or of the generation loop.

Numbers are leaves of a processor as a pytree: another temperature does not
recompile, and an array [B] gives each row its own number.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array, PyTree


class Prompt(NamedTuple):
  """Left-padded prompts.

  Attributes:
    tokens_BT: int tokens; each prompt ends in the last column.
    starts_B: column of the first token of each prompt.
  """

  tokens_BT: Array
  starts_B: Array

  def is_text(self) -> Array:
    """Return True at tokens and False at padding, bool [B, T].

    >>> Prompt(jnp.array([[0, 5, 6]]), jnp.array([1])).is_text()
    [[False, True, True]]
    """
    columns_T = jnp.arange(self.tokens_BT.shape[1])
    return columns_T[None] >= self.starts_B[:, None]

  def resets(self) -> Array | None:
    """Return where the model must reset its state, so that padding is ignored.

    >>> Prompt(jnp.array([[0, 5, 6]]), jnp.array([1])).resets()
    [[False, True, False]]

    Returns:
      bool [B, T]; None for single tokens, before which there is no padding.
    """
    time = self.tokens_BT.shape[1]
    if time == 1:
      return None
    return jnp.arange(time)[None] == self.starts_B[:, None]


class LogitsProcessor:
  """A function from logits to logits; subclasses are frozen dataclasses.

  A subclass without state overrides `__call__` only. States are pytrees whose
  leaves have the batch as their first axis.
  """

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Return the state after a prompt."""
    del prompt, vocab_size
    return ()

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Return the processed logits."""
    raise NotImplementedError

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Return the state after another token.

    Args:
      state: the state before it.
      token_B: the token of each row.
      log_prob_B: its log-probability in nats in the distribution that it was
        sampled from.
    """
    del token_B, log_prob_B
    return state


def logits_processor_class(cls: type) -> type:
  """Make a logits processor a frozen dataclass and a pytree.

  Fields are leaves, except those declared with `static`: changing one of these
  recompiles.
  """
  cls = dataclasses.dataclass(frozen=True)(cls)
  names = [], []
  for field in dataclasses.fields(cls):
    names["static" in field.metadata].append(field.name)

  def flatten(each: LogitsProcessor) -> tuple[tuple, tuple]:
    return tuple(tuple(getattr(each, x) for x in some) for some in names)

  def unflatten(fixed: tuple, leaves: tuple) -> LogitsProcessor:
    fields = zip(itertools.chain(*names), (*leaves, *fixed), strict=True)
    return cls(**dict(fields))

  # Not register_dataclass: in jax 0.10 it treats two classes with equal fields
  # as the same tree structure, so that jit may run the program of the other.
  jax.tree_util.register_pytree_node(cls, flatten, unflatten)
  return cls


def static(**options) -> dataclasses.Field:
  """Declare a field that is part of the compiled program."""
  return dataclasses.field(metadata=dict(static=True), **options)


@logits_processor_class
class Chain(LogitsProcessor):
  """Logits processors applied from left to right."""

  processors: tuple[LogitsProcessor, ...]

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Return the states of all processors."""
    return tuple(each.start(prompt, vocab_size) for each in self.processors)

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Apply each processor to the result of the one before."""
    states = state or [()] * len(self.processors)
    for each, own in zip(self.processors, states, strict=True):
      logits_BV = each(logits_BV, own)
    return logits_BV

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Update the states of all processors."""
    return tuple(
      each.advance(own, token_B, log_prob_B)
      for each, own in zip(self.processors, state, strict=True)
    )


def chain(processors: Sequence[LogitsProcessor]) -> Chain:
  """Compose logits processors from left to right.

  >>> chain([Temperature(0.5), TopK(1)])(jnp.array([[1.0, 2.0]]))
  [[-inf, 4.0]]
  """
  return Chain(tuple(processors))


def per_row(number: Array | float) -> Array:
  """Return a number [1, 1], or one number per row [B, 1]."""
  return jnp.asarray(number, jnp.float32).reshape(-1, 1)


def mask_logits(logits_BV: Array, allowed_BV: Array) -> Array:
  """Set the logits of all other tokens to −∞."""
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def is_max(logits_BV: Array) -> Array:
  """Return which tokens have the highest logit of their row, bool [B, V]."""
  return logits_BV >= jnp.max(logits_BV, axis=-1, keepdims=True)


def suppress(logits_BV: Array, suppressed_BV: Array) -> Array:
  """Set logits to −∞, but keep the most likely token if none would be left."""
  masked_BV = mask_logits(logits_BV, ~suppressed_BV)
  possible_B1 = jnp.any(masked_BV > -jnp.inf, axis=-1, keepdims=True)
  most_likely_BV = mask_logits(logits_BV, is_max(logits_BV))
  return jnp.where(possible_B1, masked_BV, most_likely_BV)
