# SPDX-License-Identifier: Apache-2.0
"""What a choice about the next token is: a function on logits, with a memory.

A filter turns the logits of the next token into others; a token with logit −∞
is never drawn. Filters compose from left to right (see `Chain`), in the order
that lmjax.decoding.filters states. What one must remember of a text, such as
how often each token occurred, is a state of its own: made from the prompt, and
moved on by each token that was chosen. So filters know nothing of each other,
nor of who asks them, and a text may go on row by row.

Numbers are leaves of a filter as a pytree: another temperature compiles
nothing, and an array [B] gives each row a number of its own.
"""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array, PyTree


class Prompt(NamedTuple):
  """Texts to go on from, of different length, with padding before them.

  Attributes:
    tokens_BT: int tokens, the last of each text in the last column.
    starts_B: column of the first token of each text.
  """

  tokens_BT: Array
  starts_B: Array

  def is_text(self) -> Array:
    """Say where texts stand and not padding: bool [B, T]."""
    columns_T = jnp.arange(self.tokens_BT.shape[1])
    return columns_T >= self.starts_B[:, None]

  def resets(self) -> Array | None:
    """Say where models forget what was before, so that padding is forgotten.

    Returns:
      bool [B, T]; None for single tokens, before which there is no padding.
    """
    time = self.tokens_BT.shape[1]
    if time == 1:
      return None
    return jnp.arange(time) == self.starts_B[:, None]


class Filter:
  """A choice about the next token; a subclass is a frozen dataclass.

  A subclass without a memory overrides the call alone. States are pytrees whose
  leaves begin with the axis of rows.
  """

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Make the state behind a prompt."""
    del prompt, vocab_size
    return ()

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Return the logits that are drawn from."""
    raise NotImplementedError

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Return the state behind another token.

    Args:
      state: the state before it.
      token_B: what was chosen.
      log_prob_B: its log-probability in nats, of those that were drawn from.
    """
    del token_B, log_prob_B
    return state


def filter_class(cls: type) -> type:
  """Make a filter a frozen dataclass and a pytree.

  Fields are leaves; those made by `static` are not, and changing one compiles
  anew.
  """
  cls = dataclasses.dataclass(frozen=True)(cls)
  names = [], []
  for field in dataclasses.fields(cls):
    names["static" in field.metadata].append(field.name)

  def flatten(each: Filter) -> tuple[tuple, tuple]:
    return tuple(tuple(getattr(each, x) for x in some) for some in names)

  def unflatten(fixed: tuple, leaves: tuple) -> Filter:
    fields = zip(itertools.chain(*names), (*leaves, *fixed), strict=True)
    return cls(**dict(fields))

  # To register_dataclass of jax 0.10, two classes with fields alike are one
  # tree, and jit may run the program of the other: their hashes often agree.
  jax.tree_util.register_pytree_node(cls, flatten, unflatten)
  return cls


def static(**options) -> dataclasses.Field:
  """Declare a field that programs are compiled for."""
  return dataclasses.field(metadata=dict(static=True), **options)


@filter_class
class Chain(Filter):
  """Filters, one after the other."""

  filters: tuple[Filter, ...]

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Make the state of each."""
    return tuple(each.start(prompt, vocab_size) for each in self.filters)

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Apply each to what the one before it left."""
    states = state or [()] * len(self.filters)
    for each, own in zip(self.filters, states, strict=True):
      logits_BV = each(logits_BV, own)
    return logits_BV

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Move each on."""
    return tuple(
      each.advance(own, token_B, log_prob_B)
      for each, own in zip(self.filters, state, strict=True)
    )


def chain(filters: list[Filter] | tuple[Filter, ...]) -> Chain:
  """Apply filters one after the other."""
  return Chain(tuple(filters))


def per_row(number: Array | float) -> Array:
  """Turn a number, or one a row, into a column [1, 1] or [B, 1]."""
  return jnp.asarray(number, jnp.float32).reshape(-1, 1)


def keep(logits_BV: Array, kept_BV: Array) -> Array:
  """Set the logits of all tokens that are not kept to −∞."""
  return jnp.where(kept_BV, logits_BV, -jnp.inf)


def is_best(logits_BV: Array) -> Array:
  """Tell which tokens have the highest logit of their row: bool [B, V]."""
  return logits_BV >= jnp.max(logits_BV, axis=-1, keepdims=True)


def leave_out(logits_BV: Array, banned_BV: Array) -> Array:
  """Set logits to −∞; where none would be left, the highest stays."""
  left_BV = keep(logits_BV, ~banned_BV)
  possible_B1 = jnp.any(left_BV > -jnp.inf, axis=-1, keepdims=True)
  return jnp.where(possible_B1, left_BV, keep(logits_BV, is_best(logits_BV)))
