# SPDX-License-Identifier: Apache-2.0
"""Everything that a training step changes."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lmjax.types import Array, PyTree


class ModelState(NamedTuple):
  """What a model carries from batch to batch besides its parameters.

  Attributes:
    collections: variables other than parameters, such as running statistics.
    carry: the recurrent state or cache of a stateful model; None if stateless.
  """

  collections: PyTree
  carry: PyTree


@flax.struct.dataclass
class TrainState:
  """The state of a run between two steps.

  Attributes:
    step: number of updates so far, int32.
    params: the model's parameters.
    opt_state: the optimizer's state.
    collections: see ModelState.
    carry: see ModelState.
    key: the root PRNG key. It never changes: each step folds its number in, so
      that a resumed run continues with the same random numbers.
  """

  step: Array
  params: PyTree
  opt_state: PyTree
  collections: PyTree
  carry: PyTree
  key: Array

  @property
  def model_state(self) -> ModelState:
    """Return the model's state."""
    return ModelState(self.collections, self.carry)


def create_state(
  key: Array,
  variables: PyTree,
  carry: PyTree,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """Return the state before the first step.

  Args:
    key: the root PRNG key.
    variables: the model's variables, "params" among them.
    carry: the carry before the first batch, or None.
    optimizer: initializes its state from the parameters.
  """
  collections = dict(variables)
  params = collections.pop("params", {})  # n-gram models have none
  collections.pop("losses", None)  # sown anew in every step
  # Moments and averages are float32 whatever the dtype of the parameters.
  precise = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(precise),
    collections=collections,
    carry=carry,
    key=key,
  )
