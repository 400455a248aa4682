# SPDX-License-Identifier: Apache-2.0
"""Counting the spans that tags encode, for all rows and tokens at once."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.types import Array


class Tables(Protocol):
  """What tags tell of spans; see lmjax.data.records.tag_schemes.SpanTables."""

  starts: np.ndarray
  ends: np.ndarray
  types: np.ndarray


class Spans(NamedTuple):
  """The spans of rows of tags.

  Attributes:
    starts_BT: whether one starts at a token.
    ends_BT: where the one that starts at a token ends.
    types_BT: number of its type.
  """

  starts_BT: Array
  ends_BT: Array
  types_BT: Array


def find_spans(tags_BT: Array, mask_BT: Array, tables: Tables) -> Spans:
  """Read the spans of tags; padding is outside of all."""
  outside = len(tables.types) - 1
  tags_BT = jnp.where(mask_BT, tags_BT, outside)
  edge = dict(constant_values=outside)
  before_BT = jnp.pad(tags_BT, ((0, 0), (1, 0)), **edge)[:, :-1]
  after_BT = jnp.pad(tags_BT, ((0, 0), (0, 1)), **edge)[:, 1:]
  length = tags_BT.shape[1]
  closed_BT = jnp.array(tables.ends)[tags_BT, after_BT]
  places_BT = jnp.where(closed_BT, jnp.arange(length), length)
  return Spans(
    jnp.array(tables.starts)[before_BT, tags_BT],
    jax.lax.cummin(places_BT, axis=1, reverse=True),
    jnp.array(tables.types)[tags_BT],
  )


def count_spans(
  predicted_BT: Array, targets_BT: Array, mask_BT: Array, tables: Tables
) -> dict[str, Array]:
  """Count spans as sums that F1 is made of.

  Returns:
    "correct" is how many are predicted with the right tokens and type,
    "predicted" how many are predicted, "labels" how many there are.
  """
  predicted = find_spans(predicted_BT, mask_BT, tables)
  wanted = find_spans(targets_BT, mask_BT, tables)
  right_BT = predicted.starts_BT & wanted.starts_BT
  right_BT &= predicted.ends_BT == wanted.ends_BT
  right_BT &= predicted.types_BT == wanted.types_BT
  found = dict(
    correct=right_BT, predicted=predicted.starts_BT, labels=wanted.starts_BT
  )
  return {k: jnp.sum(v, dtype=jnp.float32) for k, v in found.items()}
