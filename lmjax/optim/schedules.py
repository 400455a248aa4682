# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules; to add one, write a function and name it below.

Each function returns the factor of the peak learning rate after the warm-up,
which `make_schedule` adds to all of them.
"""

from collections.abc import Callable

import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.types import Array

Schedule = Callable[[Array], Array]


def _progress(step: Array, start: float, stop: float) -> Array:
  """Return how far a step is from start (0) to stop (1)."""
  return jnp.clip((step - start) / max(stop - start, 1.0), 0.0, 1.0)


def constant(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Return 1: a constant learning rate."""
  del config, num_steps
  return jnp.ones_like(step)


def cosine(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Decay by half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983).

  With warmup_steps=0, num_steps=4 and final_fraction=0, steps 0 to 4 have the
  factors 1, 0.85, 0.5, 0.15 and 0.
  """
  progress = _progress(step, config.warmup_steps, num_steps)
  falling = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
  return config.final_fraction + (1.0 - config.final_fraction) * falling


def wsd(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Warm up, stay constant, decay (Hu et al. 2024, arXiv:2404.06395).

  The decay is linear over the last `decay_fraction` of the steps. With
  num_steps=10, decay_fraction=0.2 and final_fraction=0, steps 0 to 8 have the
  factor 1, step 9 has 0.5 and step 10 has 0.
  """
  start = num_steps * (1.0 - config.decay_fraction)
  progress = _progress(step, start, num_steps)
  return 1.0 - (1.0 - config.final_fraction) * progress


def inverse_sqrt(step: Array, config: ConfigDict, num_steps: int) -> Array:
  """Decay as 1/√step after the warm-up (Vaswani et al. 2017).

  With warmup_steps=100, step 400 has the factor 0.5.
  """
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
  """Return the learning rate as a function of the number of updates so far.

  Args:
    config: the section `optim`.
    num_steps: the last step of the decay where `decay_steps` is 0.
  """
  shape = SCHEDULES[config.schedule]
  end = config.decay_steps or num_steps

  def learning_rate(step: Array) -> Array:
    step = jnp.asarray(step, jnp.float32)
    # step + 1: the first update must not have a learning rate of 0.
    warmup = jnp.minimum(1.0, (step + 1.0) / max(config.warmup_steps, 1))
    return config.learning_rate * warmup * shape(step, config, end)

  return learning_rate
