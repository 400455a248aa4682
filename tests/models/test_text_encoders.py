# SPDX-License-Identifier: Apache-2.0
"""Properties of text encoders with a classification head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import defaults
from lmjax.layers.centered_convolution import CenteredConvolution, shift
from lmjax.layers.pooling import POOLINGS
from lmjax.ops.ngram_hash import ngram_buckets
from lmjax.task_specs.build import build_model
from tests.helpers.variables import random_variables

V, C = 23, 3
LENGTHS = (6, 1, 4)
SIZES = {
  "text_cnn": dict(width=5, embedding_width=6, kernel_sizes=(1, 2, 5)),
  "bag_of_ngrams": dict(width=6, order=3, num_buckets=50),
  "recurrent_encoder": dict(width=5, embedding_width=6, num_layers=2),
  "encoder": dict(width=8, num_heads=2, num_layers=2),
}


def make(name, pooling="max", **options):
  config = defaults.get_config(model=name, task="classification")
  config.model.update(SIZES[name] | options)
  config.classification.pooling = pooling
  config.data.seq_len = 16
  return build_model(config, vocab_size=V, num_labels=C)


def texts(width, seed=0):
  """Texts of several lengths, with arbitrary tokens in the padding."""
  rng = np.random.default_rng(seed)
  words = np.random.default_rng(7).integers(0, V, (len(LENGTHS), 6))
  mask = np.arange(width) < np.array(LENGTHS)[:, None]
  tokens = rng.integers(0, V, (len(LENGTHS), width))
  tokens[:, :6][mask[:, :6]] = words[mask[:, :6]]
  return jnp.array(tokens), jnp.array(mask)


CASES = [("recurrent_encoder", pooling) for pooling in POOLINGS]
CASES += [("text_cnn", "max"), ("bag_of_ngrams", "mean"), ("encoder", "mean")]


@pytest.mark.parametrize(("name", "pooling"), CASES)
def test_padding_and_order_of_rows_change_nothing(name, pooling):
  """Neither scores nor gradients."""
  model = make(name, pooling)
  variables = random_variables(model, *texts(6))

  @jax.jit
  def learn(variables, tokens, mask):
    def loss(variables):
      scores = model.apply(variables, tokens, mask)
      return jnp.sum(scores**2), scores

    return jax.grad(loss, has_aux=True)(variables)

  gradients, scores = learn(variables, *texts(6))
  assert np.ptp(np.asarray(scores)) > 1e-2  # it says something
  wider_slopes, wider = learn(variables, *texts(11, seed=1))
  np.testing.assert_allclose(scores, wider, atol=1e-5)
  for a, b in zip(
    *map(jax.tree.leaves, (gradients, wider_slopes)), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)
  order = jnp.array([2, 0, 1])
  _, turned = learn(variables, *(x[order] for x in texts(6)))
  np.testing.assert_allclose(scores[order], turned, atol=1e-5)


def test_backward_layer_is_a_forward_layer_on_reversed_text():
  """With the parameters of both directions in each other's place."""
  model = make("recurrent_encoder", num_layers=1).encoder
  tokens = jnp.array([[3, 1, 4, 1, 5]])
  mask = jnp.ones(tokens.shape, bool)
  variables = random_variables(model, tokens, mask)
  params = dict(variables["params"])
  params["layer_0"], params["backward_0"] = (
    params["backward_0"],
    params["layer_0"],
  )
  there = model.apply(variables, tokens, mask)
  back = model.apply({"params": params}, tokens[:, ::-1], mask)
  forward, backward = jnp.split(back[:, ::-1], 2, axis=-1)
  turned = jnp.concatenate([backward, forward], axis=-1)
  np.testing.assert_allclose(there, turned, atol=1e-6)


def test_convolution_equals_a_loop_over_positions():
  sizes, features, width = (1, 2, 4), 3, 5
  layer = CenteredConvolution(features, sizes)
  x, (_, mask) = jax.random.normal(jax.random.key(0), (3, 6, width)), texts(6)
  variables = random_variables(layer, x, mask)
  made = layer.apply(variables, x, mask)
  params = jax.tree.map(np.asarray, variables["params"])
  for row, length in enumerate(LENGTHS):
    for time in range(length):
      expected = []
      for size in sizes:
        kernel = params[f"conv_{size}"]["kernel"]
        total = np.zeros(features)
        for place in range(size):
          source = time + place - (size - 1) // 2
          if 0 <= source < length:
            total += np.asarray(x)[row, source] @ kernel[:, place]
        expected.append(total)
      expected = np.concatenate(expected) + params["bias"]
      np.testing.assert_allclose(made[row, time], expected, atol=1e-5)


def test_shift_pads_with_zeros():
  x = jnp.array([[[1], [2], [3], [4]]])
  assert shift(x, 1)[0, :, 0].tolist() == [2, 3, 4, 0]
  assert shift(x, -1)[0, :, 0].tolist() == [0, 1, 2, 3]
  assert shift(x, 9)[0, :, 0].tolist() == [0, 0, 0, 0]


def test_bag_is_the_mean_over_words_and_ngrams():
  model = make("bag_of_ngrams", "mean")
  inputs = texts(9)
  variables = random_variables(model, *inputs)
  params = jax.tree.map(np.asarray, variables["params"])
  scores = model.apply(variables, *inputs)
  buckets = jax.jit(ngram_buckets, static_argnums=(1, 2))
  for row, length in enumerate(LENGTHS):
    text = np.asarray(inputs[0])[row, :length]
    vectors = list(params["embedding"]["embedding"][text])
    for order in (2, 3):
      for start in range(length - order + 1):
        gram = jnp.array([text[start : start + order]])
        bucket = int(buckets(gram, order, 50)[0, -1])
        vectors.append(params["ngrams"]["embedding"][bucket])
    expected = np.mean(vectors, axis=0) @ params["classifier"]["kernel"]
    expected += params["classifier"]["bias"]
    np.testing.assert_allclose(scores[row], expected, atol=1e-5)


def test_ngrams_are_hashed_uniformly():
  """Pairs of small numbers too, by a chi-square of three deviations."""
  first, second = jnp.meshgrid(jnp.arange(200), jnp.arange(200))
  pairs = jnp.stack([first.ravel(), second.ravel()], axis=1)
  buckets = ngram_buckets(pairs, 2, 64)
  assert (buckets[:, 0] == -1).all()
  counts = np.bincount(np.asarray(buckets[:, 1]), minlength=64)
  chi_square = ((counts - 625) ** 2 / 625).sum()
  assert abs(chi_square - 63) < 3 * (2 * 63) ** 0.5
  turned = ngram_buckets(pairs[:, ::-1], 2, 64)[:, 1]
  assert (turned != buckets[:, 1]).mean() > 0.9  # order counts


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("text_cnn", dict(dropout=0.4)),
    ("text_cnn", dict(embedding_dropout=0.4)),
    ("bag_of_ngrams", dict(dropout=0.4)),
    ("bag_of_ngrams", dict(embedding_dropout=0.4)),
    ("recurrent_encoder", dict(dropout=0.0, locked_dropout=0.4)),
    ("recurrent_encoder", dict(dropout=0.0, weight_drop=0.4)),
    ("encoder", dict(dropout=0.4)),
  ],
)
def test_dropout_is_active_only_with_a_key(name, options):
  model = make(name, **options)
  variables = random_variables(model, *texts(6))
  hidden = [
    model.encoder.apply(
      variables,
      *texts(6),
      rngs={"dropout": jax.random.key(k)} if k else None,
      method=lambda encoder, tokens, mask: encoder.contextualize(
        encoder.embed(tokens), mask
      ),
    )
    for k in (0, 1, 1, 2)
  ]
  np.testing.assert_array_equal(hidden[1], hidden[2])
  assert not np.allclose(hidden[0], hidden[1])
  assert not np.allclose(hidden[1], hidden[3])
