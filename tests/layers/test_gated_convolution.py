# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, built

B, T, E, D, SIZE = 2, 6, 5, 7, 3


def convolve(x, params, size, weight_norm):
  """Dauphin et al. 2017, equation 1: one convolution gates another."""
  kernel = params["kernel"]
  if weight_norm:
    kernel = kernel / np.linalg.norm(kernel, axis=0) * params["scale"]
  taps = kernel.reshape(size, x.shape[-1], -1)
  y = np.zeros((B, T, taps.shape[-1])) + params["bias"]
  for t in range(T):
    for back in range(min(size, t + 1)):
      y[:, t] += x[:, t - back] @ taps[back]
  linear, gate = np.split(y, 2, axis=-1)
  return linear / (1 + np.exp(-gate))


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("bottleneck_width", [0, 2])
def test_the_model_is_that_of_the_paper(weight_norm, bottleneck_width):
  """A layer that is wider than the embeddings, and a residual one."""
  model = built(
    "gated_convolution",
    num_layers=2,
    width=D,
    embedding_width=E,
    conv_size=SIZE,
    bottleneck_width=bottleneck_width,
    weight_norm=weight_norm,
  )
  tokens = np.random.default_rng(1).integers(0, VOCAB_SIZE, (B, T))
  variables = random_variables(model, tokens)
  params = jax.tree.map(np.array, variables["params"])
  x = params["embedding"]["embedding"][tokens]
  first, second = params["layer_0"], params["layer_1"]
  x = convolve(x, first["conv"], SIZE, weight_norm)
  sizes = dict(conv=SIZE)
  if bottleneck_width:
    sizes = dict(down=1, conv=SIZE, up=1)
  assert second.keys() == sizes.keys()
  y = x
  for name, size in sizes.items():
    y = convolve(y, second[name], size, weight_norm)
  hidden, _ = model.apply(variables, tokens)
  np.testing.assert_allclose(hidden, x + y, atol=1e-4)
