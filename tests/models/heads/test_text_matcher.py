# SPDX-License-Identifier: Apache-2.0
"""Properties of text matchers: two-tower models and cross-encoders."""

import functools

import jax
import numpy as np
import pytest

from lmjax.config import defaults
from lmjax.models.heads.text_matcher import COMPARISONS, PRODUCTS
from lmjax.task_specs.build import build_model
from tests.helpers.variables import random_variables

B, T, S, V = 3, 5, 7, 11
SYMMETRIC = tuple(name for name in COMPARISONS if name != "bilinear")


def matcher(model="recurrent_encoder", sizes=None, **options):
  config = defaults.get_config(model=model, task="matching")
  config.model.update(dict(num_layers=1, width=8))
  config.data.seq_len = 16
  config.matching.update(options)
  return build_model(config, V, **(sizes or {}))


def batch():
  rng = np.random.default_rng(0)
  sizes_B, others_B = np.array([2, T, 1]), np.array([S, 3, 4])
  return dict(
    inputs=rng.integers(4, V, (B, T)),
    mask=np.arange(T) < sizes_B[:, None],
    others=rng.integers(4, V, (B, S)),
    others_mask=np.arange(S) < others_B[:, None],
  )


def swapped():
  names = dict(
    inputs="others", mask="others_mask", others="inputs", others_mask="mask"
  )
  rows = batch()
  return {name: rows[other] for name, other in names.items()}


def square(rows):
  """Pad both texts to one length, so that swapping them needs no recompile."""
  return {k: np.pad(v, ((0, 0), (0, S - v.shape[1]))) for k, v in rows.items()}


def outputs(model, *batches):
  """Return the outputs for batches with the same random variables."""
  variables, apply = random_variables(model, batches[0]), jax.jit(model.apply)
  return [np.asarray(apply(variables, rows)) for rows in batches]


@pytest.mark.parametrize(
  ("model", "comparison"),
  [*[("recurrent_encoder", name) for name in SYMMETRIC], ("encoder", "cosine")],
)
def test_shared_encoder_and_symmetric_comparison_are_symmetric(
  model, comparison
):
  made = matcher(
    model, loss="regression", encoders="shared", comparison=comparison
  )
  forth, back = outputs(made, square(batch()), square(swapped()))
  np.testing.assert_allclose(forth, back, rtol=1e-5)
  assert np.all((forth >= 0) & (forth <= 1)) and np.ptp(forth) > 1e-3


@pytest.mark.parametrize(
  "options",
  [
    dict(encoders="shared", comparison="bilinear"),
    dict(encoders="separate", comparison="cosine"),
  ],
)
def test_bilinear_comparison_and_two_encoders_are_asymmetric(options):
  made = matcher(loss="regression", **options)
  forth, back = outputs(made, square(batch()), square(swapped()))
  assert np.abs(forth - back).max() > 1e-3


def both(model, variables, rows):
  """Return the outputs for pairs, and the vectors of their texts."""

  def apply(variables):
    vectors = model.apply(variables, rows, method="vectors")
    return model.apply(variables, rows), vectors

  return jax.jit(apply)(variables)


@pytest.mark.parametrize("comparison", PRODUCTS)
def test_similarity_is_the_dot_product_of_the_vectors(comparison):
  made = matcher(loss="contrastive", comparison=comparison)
  variables, rows = random_variables(made, batch()), batch()
  output_B, vectors = both(made, variables, rows)
  products_B = np.sum(vectors["first"] * vectors["second"], axis=-1)
  np.testing.assert_allclose(output_B, products_B, rtol=1e-5)
  alone = {k: rows[k] for k in ("others", "others_mask")}
  vectors_of = functools.partial(made.apply, method="vectors")
  alone = jax.jit(vectors_of)(variables, alone)
  assert alone.keys() == {"second"}
  np.testing.assert_allclose(alone["second"], vectors["second"], rtol=1e-5)
  if comparison == "cosine":
    norms_B = np.linalg.norm(vectors["first"], axis=-1)
    np.testing.assert_allclose(norms_B, 1, rtol=1e-5)


def test_manhattan_comparison_equals_its_formula():
  made = matcher(loss="regression", comparison="manhattan")
  output_B, vectors = both(made, random_variables(made, batch()), batch())
  distance_B = np.abs(vectors["first"] - vectors["second"]).sum(axis=-1)
  np.testing.assert_allclose(output_B, np.exp(-distance_B), rtol=1e-5)


def test_two_encoders_have_separate_vocabularies():
  made = matcher(
    loss="contrastive", second_tokenizer="word", sizes=dict(second_vocab_size=6)
  )
  params = jax.eval_shape(made.init, jax.random.key(0), batch())["params"]
  second = params["second_encoder"]
  assert params["embedding"]["embedding"].shape == (V, 8)
  assert second["embedding"]["embedding"].shape == (6, 8)
  assert params["layer_0"].keys() == second["layer_0"].keys()


@pytest.mark.parametrize(
  ("model", "loss"),
  [("recurrent_encoder", "classification"), ("encoder", "regression")],
)
def test_cross_encoder_depends_on_segments_but_not_on_padding(model, loss):
  made = matcher(model, loss=loss, encoders="cross", sizes=dict(num_labels=3))
  rows = batch()
  rows = dict(inputs=rows["inputs"], mask=rows["mask"])
  segments = np.zeros((B, T), np.int32)
  inside, padding = segments.copy(), segments.copy()
  inside[:, 0] = 1
  padding[~rows["mask"]] = 1
  first, other, same = outputs(
    made, *(dict(rows, segments=each) for each in (segments, inside, padding))
  )
  assert first.shape == ((B, 3) if loss == "classification" else (B,))
  assert np.abs(first - other).min() > 1e-4
  np.testing.assert_allclose(first, same, rtol=1e-5)
