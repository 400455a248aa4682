# SPDX-License-Identifier: Apache-2.0
"""Optimizers; to add one, write a function and name it below.

Each function returns the direction of the update, without learning rate and
weight decay, which `make_optimizer` adds to all of them.
"""

import optax
from ml_collections import ConfigDict

from lmjax.optim.averaging import average_params, nt_average_params
from lmjax.optim.schedules import make_schedule
from lmjax.optim.transforms import (
  clip_norm,
  decay_weights,
  freeze,
  scale_learning_rates,
)


def adam(config: ConfigDict) -> optax.GradientTransformation:
  """Adam (Kingma & Ba 2015, arXiv:1412.6980); AdamW with weight decay."""
  return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)


def sgd(config: ConfigDict) -> optax.GradientTransformation:
  """Stochastic gradient descent with momentum."""
  return optax.trace(decay=config.momentum, nesterov=config.nesterov)


def adagrad(config: ConfigDict) -> optax.GradientTransformation:
  """Adagrad (Duchi et al. 2011), with sums that start at 0."""
  return optax.scale_by_rss(initial_accumulator_value=0.0, eps=config.eps**2)


OPTIMIZERS = {"adamw": adam, "adagrad": adagrad, "sgd": sgd}


def make_optimizer(
  config: ConfigDict, num_steps: int
) -> optax.GradientTransformationExtraArgs:
  """Chain the transforms that a config names.

  In this order: gradient clipping, direction, weight decay, freezing, learning
  rates, reduction on plateaus, and averages of the parameters.

  Args:
    config: the section `optim`.
    num_steps: number of training steps.

  Returns:
    An optimizer whose `update` takes the training loss as `value`, by which
    plateaus are detected, and the gradient norm as `grad_norm`.
  """
  parts = []
  if config.clip_norm:
    parts.append(clip_norm(config.clip_norm))
  parts.append(OPTIMIZERS[config.name](config))
  if config.weight_decay:
    parts.append(decay_weights(config.weight_decay, config.no_decay))
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
