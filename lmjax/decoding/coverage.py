# SPDX-License-Identifier: Apache-2.0
"""A decoding model that records how much of a source was attended to."""

from typing import Self

import jax.numpy as jnp

from lmjax.decoding.decoding_model import DecodingModel, register
from lmjax.errors import UsageError
from lmjax.types import Array, PyTree


@register
class CoverageModel(DecodingModel):
  """A DecodingModel whose carry also holds the coverage of the source.

  Coverage is the attention that each source position received, summed over the
  target tokens so far (Wu et al. 2016, arXiv:1609.08144). It is part of the
  carry so that beam search copies it together with each hypothesis.
  """

  @classmethod
  def of(cls, model: DecodingModel) -> Self:
    """Return a DecodingModel, bound to a source, that also records coverage."""
    return cls(
      model.model,
      model.variables,
      model.memory,
      model.source_mask_BS,
      model.bidirectional_prompt,
    )

  def initial_carry(self, batch_size: int, capacity: int) -> PyTree:
    """Return an empty carry; padding of the source counts as covered."""
    carry = super().initial_carry(batch_size, capacity)
    return carry, jnp.where(self.source_mask_BS, 0.0, 1.0)

  def forward(
    self, tokens_BT: Array, carry: PyTree, resets_BT: Array | None = None
  ) -> tuple[PyTree, PyTree]:
    """Process tokens and add their attention; see DecodingModel.

    Raises:
      UsageError: if the model has no attention over the source.
    """
    carry, covered_BS = carry
    (hidden, carry), sown = self._apply(
      tokens_BT,
      carry,
      resets_BT,
      memory=self.memory,
      mutable=["intermediates"],
    )
    weights_BTS = self.model.attended(sown.get("intermediates", {}))
    if weights_BTS is None:
      raise UsageError(
        "coverage_penalty needs a model with attention over the source, and "
        "this model has none; set coverage_penalty=0."
      )
    return hidden, (carry, covered_BS + jnp.sum(weights_BTS, axis=1))


def coverage(carry: PyTree) -> Array:
  """Return the coverage [B, S] in a carry of a CoverageModel."""
  return carry[1]
