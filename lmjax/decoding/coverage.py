# SPDX-License-Identifier: Apache-2.0
"""Steps that remember how much of a source a text has attended to."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.decoding.generate import Step
from lmjax.errors import UsageError
from lmjax.types import Array, PyTree


def uncovered(carry: PyTree, mask_BS: Array) -> PyTree:
  """Return a carry for `attending_step`: nothing was attended to so far.

  Args:
    carry: the model's.
    mask_BS: false on the padding of sources, which needs no coverage.
  """
  return carry, jnp.where(mask_BS, 0.0, 1.0)


def covered(carry: PyTree) -> Array:
  """Return how much each place of a source was attended to, [B, S]."""
  return carry[1]


def attending_step(model: nn.Module, variables: PyTree, memory: PyTree) -> Step:
  """Return what turns a token a row into logits, and counts what is attended.

  Args:
    model: keeps the contract of lmjax.models, with `attended`.
    variables: its own.
    memory: what it made of sources.

  The step raises a UsageError if the model has no attention.
  """

  def step(
    tokens_B1: Array, carry: PyTree, resets_B1: Array | None = None
  ) -> tuple[Array, PyTree]:
    carry, covered_BS = carry
    (hidden, carry), sown = model.apply(
      variables,
      tokens_B1,
      carry,
      resets_B1,
      memory=memory,
      mutable=["intermediates"],
    )
    weights_B1S = model.attended(sown.get("intermediates", {}))
    if weights_B1S is None:
      raise UsageError(
        "a model without attention covers no source; leave the coverage "
        "penalty out."
      )
    covered_BS += weights_B1S[:, 0]
    logits_B1V = model.apply(variables, hidden, method="logits")
    return logits_B1V[:, 0], (carry, covered_BS)

  return step
