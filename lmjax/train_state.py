# SPDX-License-Identifier: Apache-2.0
"""Everything that one step changes."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lmjax.types import Array, PyTree


@flax.struct.dataclass
class TrainState:
  """The state of a run between two steps.

  Attributes:
    step: number of updates made, int32.
    params: the model's parameters.
    opt_state: the optimizer's state.
    collections: the model's other variables, as running statistics.
    carry: what the model remembers from batch to batch; None if stateless.
    key: the root key; it never changes, steps fold their number into it.
  """

  step: Array
  params: PyTree
  opt_state: PyTree
  collections: PyTree
  carry: PyTree
  key: Array


def create_state(
  key: Array,
  variables: PyTree,
  carry: PyTree,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """Make the state before the first step.

  Args:
    key: the root key.
    variables: the model's variables, "params" among them.
    carry: what the model remembers before the first batch, or None.
    optimizer: what will learn.
  """
  collections = dict(variables)
  params = collections.pop("params", {})  # counted models have none
  precise = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
  collections.pop("losses", None)  # made anew in every step
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(precise),  # float32, whatever the parameters
    collections=collections,
    carry=carry,
    key=key,
  )
