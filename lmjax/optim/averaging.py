# SPDX-License-Identifier: Apache-2.0
"""Averages of the parameters, as optimizer states."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmjax.types import Array, PyTree


class Average(NamedTuple):
  """An average of the parameters, which is what is evaluated."""

  params: PyTree


def average_params(decay: float) -> optax.GradientTransformation:
  """Keep an exponential moving average of the parameters; last in a chain.

  The exponential form of Polyak & Juditsky 1992.
  """

  def update(updates: PyTree, state: Average, params: PyTree):
    new_params = optax.apply_updates(params, updates)
    average = optax.incremental_update(new_params, state.params, 1.0 - decay)
    return updates, Average(average)

  def init(params: PyTree) -> Average:
    return Average(jax.tree.map(jnp.array, params))

  return optax.GradientTransformation(init, update)


class NTAverage(NamedTuple):
  """Mean of the parameters since a trigger, and the state of the trigger."""

  average: Average
  count: Array  # updates since the trigger; 0 before it
  step: Array
  total: Array  # sum of the losses of this period
  recent_N: Array  # mean losses of the newest periods
  best: Array  # lowest mean loss of the periods before those


def nt_average_params(
  every: int, patience: int
) -> optax.GradientTransformationExtraArgs:
  """Average the parameters once the loss has stalled; last in a chain.

  With SGD without momentum this is NT-ASGD (Merity et al. 2018,
  arXiv:1708.02182). Averaging starts when a loss is above the lowest of those
  before the newest `patience`. The paper uses validation losses; an optimizer
  sees only training losses, whose means over `every` steps are used here.
  """

  def init(params: PyTree) -> NTAverage:
    zero = jnp.zeros((), jnp.int32)
    return NTAverage(
      average=Average(jax.tree.map(jnp.array, params)),
      count=zero,
      step=zero,
      total=jnp.zeros(()),
      recent_N=jnp.full(patience, jnp.inf),
      best=jnp.array(jnp.inf),
    )

  def update(updates, state, params, *, value, **extra):
    del extra
    step, total = state.step + 1, state.total + value
    is_end, loss = step % every == 0, total / every
    triggered = (state.count > 0) | (is_end & (loss > state.best))
    count = jnp.where(triggered, state.count + 1, 0)
    weight = 1.0 / jnp.maximum(count, 1)
    new_params = optax.apply_updates(params, updates)
    average = optax.incremental_update(new_params, state.average.params, weight)
    recent_N = jnp.append(state.recent_N[1:], loss)
    best = jnp.minimum(state.best, state.recent_N[0])
    return updates, NTAverage(
      average=Average(average),
      count=count,
      step=step,
      total=jnp.where(is_end, 0.0, total),
      recent_N=jnp.where(is_end, recent_N, state.recent_N),
      best=jnp.where(is_end, best, state.best),
    )

  return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(opt_state: PyTree) -> PyTree | None:
  """Return the average in an optimizer's state; None if there is none."""
  nodes = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, Average))
  found = [node.params for node in nodes if isinstance(node, Average)]
  return found[0] if found else None


def map_averages(
  function: Callable[[PyTree], PyTree], opt_state: PyTree
) -> PyTree:
  """Apply a function to the averages in an optimizer's state."""

  def change(node: PyTree) -> PyTree:
    is_average = isinstance(node, Average)
    return Average(function(node.params)) if is_average else node

  return jax.tree.map(
    change, opt_state, is_leaf=lambda node: isinstance(node, Average)
  )
