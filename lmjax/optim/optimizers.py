# SPDX-License-Identifier: Apache-2.0
"""Optimizers, learning-rate schedules and parameter averages, from Optax.

To add an optimizer or a schedule, write a function and name it in its table.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.tree import map_named, named_leaves
from lmjax.types import Array, PyTree

Schedule = Callable[[Array], Array]


def _progress(step: Array, start: float, stop: float) -> Array:
  return jnp.clip((step - start) / max(stop - start, 1.0), 0.0, 1.0)


def constant(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Stay."""
  del config, num_steps
  return jnp.ones_like(step)


def cosine(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Fall as half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
  progress = _progress(step, config.warmup_steps, num_steps)
  falling = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
  return config.final_fraction + (1.0 - config.final_fraction) * falling


def wsd(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Warm up, stay, decay at the end (Hu et al. 2024, arXiv:2404.06395)."""
  start = num_steps * (1.0 - config.decay_fraction)
  progress = _progress(step, start, num_steps)
  return 1.0 - (1.0 - config.final_fraction) * progress


def inverse_sqrt(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Fall as 1/√step after the warm-up (Vaswani et al. 2017)."""
  del num_steps
  warmup = max(config.warmup_steps, 1)
  return jnp.sqrt(warmup / jnp.maximum(step, warmup))


SCHEDULES = {
  "constant": constant,
  "cosine": cosine,
  "wsd": wsd,
  "inverse_sqrt": inverse_sqrt,
}


def make_schedule(config: ConfigDict, num_steps: int) -> Schedule:
  """Make the learning rate as a function of the number of updates so far.

  Args:
    config: the `optim` section.
    num_steps: length of training, where `decay_steps` is 0.
  """
  shape = SCHEDULES[config.schedule]
  end = config.decay_steps or num_steps

  def learning_rate(step: Array) -> Array:
    step = jnp.asarray(step, jnp.float32)
    warmup = jnp.minimum(1.0, (step + 1.0) / max(config.warmup_steps, 1))
    return config.learning_rate * warmup * shape(step, config, end)

  return learning_rate


def adam(config: ConfigDict) -> optax.GradientTransformation:
  """Make Adam's direction (Kingma & Ba 2015, arXiv:1412.6980)."""
  return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)


def adamw(config: ConfigDict) -> optax.GradientTransformation:
  """Make AdamW's (Loshchilov & Hutter 2019, arXiv:1711.05101).

  Parameters whose path matches `no_decay` do not decay.
  """
  pattern = re.compile(config.no_decay)

  def decays(params: PyTree) -> PyTree:
    return map_named(lambda name, _: not pattern.search(name), params)

  decay = optax.add_decayed_weights(config.weight_decay, mask=decays)
  return optax.chain(adam(config), decay)


def sgd(config: ConfigDict) -> optax.GradientTransformation:
  """Make stochastic gradient descent with momentum."""
  return optax.trace(decay=config.momentum, nesterov=config.nesterov)


def adagrad(config: ConfigDict) -> optax.GradientTransformation:
  """Make Adagrad's direction (Duchi et al. 2011), from sums that begin at 0."""
  return optax.scale_by_rss(initial_accumulator_value=0.0, eps=config.eps**2)


OPTIMIZERS = {"adam": adam, "adamw": adamw, "adagrad": adagrad, "sgd": sgd}


def clip_norm(limit: float) -> optax.GradientTransformationExtraArgs:
  """Scale gradients down to a global norm (Pascanu et al. 2013).

  Args:
    limit: the largest norm. `update` takes the norm as `grad_norm` where it is
      known, so that gradients are not read once more.
  """

  def update(updates, state, params=None, *, grad_norm=None, **extra):
    del params, extra
    norm = optax.tree.norm(updates) if grad_norm is None else grad_norm
    factor = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-30))
    return jax.tree.map(lambda leaf: leaf * factor, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def freeze(
  pattern: str, optimizer: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
  """Leave parameters as they are, without moments and decay.

  Args:
    pattern: regular expression on their paths.
    optimizer: what treats the others; it sees nothing of the frozen ones, so
      their gradients are not in the norm that it clips.

  Raises:
    UsageError: when its state is made, if the pattern matches no parameter.
  """
  search = re.compile(pattern).search

  def roles(params: PyTree) -> PyTree:
    return map_named(
      lambda name, _: "frozen" if search(name) else "learning", params
    )

  both = optax.partition(
    {"learning": optimizer, "frozen": optax.set_to_zero()}, roles
  )

  def init(params: PyTree) -> optax.OptState:
    if "frozen" not in jax.tree.leaves(roles(params)):
      raise UsageError(
        f"optim.freeze={pattern} matches no parameter; there are "
        f"{', '.join(named_leaves(params))}."
      )
    return both.init(params)

  def update(updates, state, params=None, *, grad_norm=None, **extra):
    del grad_norm
    return both.update(updates, state, params, **extra)

  return optax.GradientTransformationExtraArgs(init, update)


def scale_learning_rates(
  rates: Sequence[tuple[str, float]],
) -> optax.GradientTransformation:
  """Give parameters learning rates of their own.

  As Howard & Ruder 2018 (arXiv:1801.06146) do with layers that were learned
  elsewhere. Decay is a part of the update, and is scaled with it.

  Args:
    rates: regular expressions on paths, and factors; a parameter takes the
      first that matches, and else 1.

  Raises:
    UsageError: when its state is made, if an expression is the first that
      matches of no parameter.
  """
  searches = [re.compile(pattern).search for pattern, _ in rates]

  def first(name: str) -> int | None:
    matching = (i for i, search in enumerate(searches) if search(name))
    return next(matching, None)

  def init(params: PyTree) -> optax.EmptyState:
    names = named_leaves(params)
    unused = set(range(len(rates))) - set(map(first, names))
    if unused:
      raise UsageError(
        f"optim.lr_multipliers: {rates[min(unused)][0]} is the first that matches of no "
        f"parameter; there are {', '.join(names)}."
      )
    return optax.EmptyState()

  def scale(name: str, update: Array) -> Array:
    index = first(name)
    return update if index is None else update * rates[index][1]

  def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None):
    del params
    return map_named(scale, updates), state

  return optax.GradientTransformation(init, update)


class Average(NamedTuple):
  """An average of the parameters, which is what is judged."""

  params: PyTree


def average_params(decay: float) -> optax.GradientTransformation:
  """Follow the parameters with a moving average; last in a chain.

  Polyak & Juditsky 1992, in the exponential form.
  """

  def update(updates: PyTree, state: Average, params: PyTree):
    new_params = optax.apply_updates(params, updates)
    average = optax.incremental_update(new_params, state.params, 1.0 - decay)
    return updates, Average(average)

  def init(params: PyTree) -> Average:
    return Average(jax.tree.map(jnp.array, params))

  return optax.GradientTransformation(init, update)


class NTAverage(NamedTuple):
  """Mean of the parameters since a trigger, and what the trigger looks at."""

  average: Average
  count: Array  # updates since the trigger; 0 before it
  step: Array
  total: Array  # of the losses of this period
  recent_N: Array  # losses of the newest periods
  best: Array  # least loss of the periods before those


def nt_average_params(
  every: int, patience: int
) -> optax.GradientTransformationExtraArgs:
  """Average the parameters once the loss has stalled; last in a chain.

  NT-ASGD with sgd without momentum (Merity et al. 2018, arXiv:1708.02182): the
  trigger is a loss above the least of those before the newest `patience`. The
  paper looks at validation losses; an optimizer sees those of training, the
  mean over `every` steps.
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
    is_done, loss = step % every == 0, total / every
    triggered = (state.count > 0) | (is_done & (loss > state.best))
    count = jnp.where(triggered, state.count + 1, 0)
    share = 1.0 / jnp.maximum(count, 1)
    new_params = optax.apply_updates(params, updates)
    average = optax.incremental_update(new_params, state.average.params, share)
    recent_N = jnp.append(state.recent_N[1:], loss)
    best = jnp.minimum(state.best, state.recent_N[0])
    return updates, NTAverage(
      average=Average(average),
      count=count,
      step=step,
      total=jnp.where(is_done, 0.0, total),
      recent_N=jnp.where(is_done, recent_N, state.recent_N),
      best=jnp.where(is_done, best, state.best),
    )

  return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(opt_state: PyTree) -> PyTree | None:
  """Find the average in an optimizer's state; None if there is none."""
  nodes = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, Average))
  found = [node.params for node in nodes if isinstance(node, Average)]
  return found[0] if found else None


def map_averages(
  function: Callable[[PyTree], PyTree], opt_state: PyTree
) -> PyTree:
  """Change the averages in an optimizer's state."""

  def change(node: PyTree) -> PyTree:
    is_average = isinstance(node, Average)
    return Average(function(node.params)) if is_average else node

  return jax.tree.map(
    change, opt_state, is_leaf=lambda node: isinstance(node, Average)
  )


def plateau_scale(opt_state: PyTree) -> float:
  """Find what reduce-on-plateau multiplies the rate by; 1 without it."""
  kind = optax.contrib.ReduceLROnPlateauState
  nodes = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, kind))
  scales = [float(node.scale) for node in nodes if isinstance(node, kind)]
  return scales[0] if scales else 1.0


def make_optimizer(
  config: ConfigDict, num_steps: int
) -> optax.GradientTransformationExtraArgs:
  """Chain clipping, direction, freezing, rates, plateau and average.

  Args:
    config: the `optim` section.
    num_steps: length of training.

  Returns:
    An optimizer whose `update` takes the training loss as `value`, which
    reduce-on-plateau looks at.
  """
  parts = []
  if config.clip_norm:
    parts.append(clip_norm(config.clip_norm))
  parts.append(OPTIMIZERS[config.name](config))
  if config.freeze:
    parts = [freeze(config.freeze, optax.chain(*parts))]
  if config.lr_multipliers:
    parts.append(scale_learning_rates(config.lr_multipliers))
  schedule = make_schedule(config, num_steps)
  parts.append(optax.scale_by_learning_rate(schedule))
  if config.plateau_factor < 1.0:
    parts.append(
      optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        accumulation_size=config.plateau_every,
      )
    )
  if config.ema_decay:
    parts.append(average_params(config.ema_decay))
  if config.nt_asgd_every:
    parts.append(
      nt_average_params(config.nt_asgd_every, config.nt_asgd_patience)
    )
  return optax.with_extra_args_support(optax.chain(*parts))
