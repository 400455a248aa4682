# SPDX-License-Identifier: Apache-2.0
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.layers.norms import BatchNorm


def test_batch_norm_is_that_of_flax_in_training_and_evaluation():
  x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (4, 5, 3))
  cotangent = jax.random.normal(jax.random.key(1), x.shape)
  params = {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.5, 0, 1])}
  ours = BatchNorm(momentum=0.7)
  theirs = nn.BatchNorm(momentum=0.7, use_running_average=False)

  def train(layer, names, statistics):
    def run(params, x):
      variables = {"params": params, "batch_stats": statistics}
      return layer.apply(variables, x, mutable=["batch_stats"])

    out, vjp, changed = jax.vjp(run, params, x, has_aux=True)
    moved = changed["batch_stats"]
    return [out, vjp(cotangent), [moved[name] for name in names]]

  mean, variance = jnp.zeros(3), jnp.ones(3)
  mine = train(ours, ("mean", "variance"), dict(mean=mean, variance=variance))
  flax = train(theirs, ("mean", "var"), dict(mean=mean, var=variance))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), mine, flax
  )
  moved = dict(mean=jnp.ones(3), variance=4.0 * jnp.ones(3))
  out = ours.apply({"params": params, "batch_stats": moved}, x)
  scale, bias = np.asarray(params["scale"]), np.asarray(params["bias"])
  expected = (np.asarray(x) - 1.0) / (4.0 + 1e-5) ** 0.5 * scale + bias
  np.testing.assert_allclose(out, expected, atol=1e-5)
