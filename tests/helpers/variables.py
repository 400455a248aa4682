# SPDX-License-Identifier: Apache-2.0
"""Variables of models that are large enough for all of them to matter."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models.language_model import LanguageModel
from lmjax.tree import map_named


def random_variables(
  model: LanguageModel, *inputs: jax.Array, **options: jax.Array
):
  """Return random variables of the shapes that `model.init` returns.

  They come from NumPy: compiling the initialization would take longer.
  """
  rng = np.random.default_rng(0)

  def sample(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    values = 0.4 * rng.normal(size=leaf.shape)
    if name.endswith("scale"):
      values = 1.0 + values
    elif name.endswith("variance"):
      values = 1.0 + np.abs(values)
    return jnp.array(values, leaf.dtype)

  key = jax.random.key(0)
  return map_named(sample, jax.eval_shape(model.init, key, *inputs, **options))


def scaled_variables(experiment, seed=0, scale=4.0, shift=0.0):
  """Return the initial variables of an experiment, scaled and shifted."""
  variables = jax.jit(experiment.make_variables)(jax.random.key(seed))
  return jax.tree.map(lambda leaf: scale * leaf + shift, variables)
