# SPDX-License-Identifier: Apache-2.0
"""Gradient transforms around an optimizer's direction."""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from lmjax.errors import UsageError
from lmjax.tree import map_named, named_leaves
from lmjax.types import Array, PyTree


def clip_norm(limit: float) -> optax.GradientTransformationExtraArgs:
  """Scale gradients down to a global norm (Pascanu et al. 2013).

  Args:
    limit: the largest norm. `update` accepts a known norm as `grad_norm`, which
      saves reading the gradients once more.
  """

  def update(updates, state, params=None, *, grad_norm=None, **extra):
    del params, extra
    norm = optax.tree.norm(updates) if grad_norm is None else grad_norm
    factor = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-30))
    return jax.tree.map(lambda leaf: leaf * factor, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def decay_weights(rate: float, excluded: str) -> optax.GradientTransformation:
  """Add decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

  It comes after the direction of the optimizer and before the learning rate, so
  that it is the same for every optimizer.

  Args:
    rate: factor of the parameters.
    excluded: regular expression on the paths of parameters that do not decay.
  """
  search = re.compile(excluded).search

  def decays(params: PyTree) -> PyTree:
    return map_named(lambda name, _: not search(name), params)

  return optax.add_decayed_weights(rate, mask=decays)


def freeze(
  pattern: str, optimizer: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
  """Freeze parameters: no update, no moments, no weight decay.

  Args:
    pattern: regular expression on their paths.
    optimizer: updates the other parameters. It does not see the frozen ones, so
      their gradients do not count in the norm that it clips.

  Raises:
    UsageError: at initialization, if the pattern matches no parameter.
  """
  search = re.compile(pattern).search

  def labels(params: PyTree) -> PyTree:
    return map_named(
      lambda name, _: "frozen" if search(name) else "trained", params
    )

  both = optax.partition(
    {"trained": optimizer, "frozen": optax.set_to_zero()}, labels
  )

  def init(params: PyTree) -> optax.OptState:
    if "frozen" not in jax.tree.leaves(labels(params)):
      raise UsageError(
        f"optim.freeze={pattern} matches no parameter; there are "
        f"{', '.join(named_leaves(params))}."
      )
    return both.init(params)

  def update(updates, state, params=None, *, grad_norm=None, **extra):
    del grad_norm  # the norm of all parameters, frozen ones included
    return both.update(updates, state, params, **extra)

  return optax.GradientTransformationExtraArgs(init, update)


def scale_learning_rates(
  multipliers: Sequence[tuple[str, float]],
) -> optax.GradientTransformation:
  """Multiply the learning rates of some parameters.

  Discriminative fine-tuning (Howard & Ruder 2018, arXiv:1801.06146). Weight
  decay is a part of the update and is scaled with it.

  Args:
    multipliers: pairs of a regular expression on paths and a factor; the first
      match counts, and without one the factor is 1.

  Raises:
    UsageError: at initialization, if an expression is not the first match
      of any parameter.
  """
  searches = [re.compile(pattern).search for pattern, _ in multipliers]

  def first(name: str) -> int | None:
    matching = (i for i, search in enumerate(searches) if search(name))
    return next(matching, None)

  def init(params: PyTree) -> optax.EmptyState:
    names = named_leaves(params)
    unused = set(range(len(multipliers))) - set(map(first, names))
    if unused:
      raise UsageError(
        f"optim.lr_multipliers: {multipliers[min(unused)][0]} is not the first "
        "match of any parameter; remove it or change the order. Parameters: "
        f"{', '.join(names)}."
      )
    return optax.EmptyState()

  def scale(name: str, update: Array) -> Array:
    index = first(name)
    return update if index is None else update * multipliers[index][1]

  def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None):
    del params
    return map_named(scale, updates), state

  return optax.GradientTransformation(init, update)


def plateau_scale(opt_state: PyTree) -> float:
  """Return the factor of reduce-on-plateau in a state; 1 if it is off."""
  kind = optax.contrib.ReduceLROnPlateauState
  nodes = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, kind))
  scales = [float(node.scale) for node in nodes if isinstance(node, kind)]
  return scales[0] if scales else 1.0
