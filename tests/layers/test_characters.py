# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from lmjax.layers.characters import CHARACTER_ENCODERS
from tests.helpers.variables import random_variables

B, T, W, E, D, V = 2, 3, 6, 4, 5, 9


def example(kind):
  layer = CHARACTER_ENCODERS[kind](V, E, D)
  rng = np.random.default_rng(0)
  lengths = np.array([[6, 1, 3], [2, 0, 4]])[..., None]
  characters = rng.integers(1, V, (B, T, W)) * (np.arange(W) < lengths)
  return layer, random_variables(layer, characters), characters


@pytest.mark.parametrize("kind", CHARACTER_ENCODERS)
def test_every_character_of_a_word_is_read_and_no_other(kind):
  layer, variables, characters = example(kind)
  apply = jax.jit(layer.apply)
  vectors = apply(variables, characters)
  assert vectors.shape == (B, T, D)
  wider = np.pad(characters, ((0, 0), (0, 0), (0, 3)))
  np.testing.assert_allclose(apply(variables, wider), vectors, atol=1e-6)
  assert not np.any(vectors[1, 1])  # no character at all

  def moved(place):
    """Say which words' vectors another character changes."""
    other = characters.copy()
    other[place] = other[place] % (V - 1) + 1
    changed = np.any(apply(variables, other) != vectors, axis=-1)
    return {tuple(map(int, index)) for index in np.argwhere(changed)}

  assert moved((0, 0, 0)) == moved((0, 0, 5)) == {(0, 0)}
  assert moved((1, 2, 3)) == {(1, 2)}


def test_the_cnn_is_the_maximum_of_affine_maps_of_three():
  layer, variables, characters = example("cnn")
  params = variables["params"]
  vectors = layer.apply(variables, characters)
  word = params["embedding"]["embedding"][characters[1, 2, :4]]
  padded = np.pad(word, ((1, 1), (0, 0)))
  made = [
    padded[t : t + 3].reshape(-1) @ params["convolution"]["kernel"]
    for t in range(4)
  ]
  wanted = np.max(made, axis=0) + params["convolution"]["bias"]
  np.testing.assert_allclose(vectors[1, 2], wanted, rtol=1e-5)
