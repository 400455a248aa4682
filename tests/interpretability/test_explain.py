# SPDX-License-Identifier: Apache-2.0
"""What explains a text: attributions, attention maps, projections, a page."""

import dataclasses
import re
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.records.labels import Labels
from lmjax.data.tokenizers import TOKENIZERS
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.interpretability.attention import attention_maps
from lmjax.interpretability.attribution import (
  gradient_times_input,
  gradients,
  integrated_gradients,
  look_up,
  norms,
  reading,
)
from lmjax.interpretability.explainers import (
  INTEGRATED,
  explain_label,
  explain_next_token,
)
from lmjax.interpretability.page import page
from lmjax.interpretability.plots import attention_map, attribution_bars, label
from lmjax.interpretability.projection import choose, principal_components
from lmjax.interpretability.report import shown, write_report
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.models.heads.text_classifier import TextClassifier
from lmjax.models.recurrent_encoder import RecurrentEncoder
from lmjax.run import Run
from lmjax.training import loop
from tests.helpers.variables import random_variables
from tests.tiny_models import (
  VOCAB_SIZE,
  encoder,
  recurrent,
  transformer,
  transformer_xl,
)

ROOT = Path(__file__).parent.parent.parent
TOKENS = np.array([[5, 3, 9, 9, 7, 0], [4, 10, 6, 0, 0, 0]])
MASK = np.arange(6) < np.array([[5], [3]])
TOKENIZER = TOKENIZERS["word"].train(["a b c d e f $x$"], 0, 1, False)
KNOWN = Vocabularies(
  {"text": TOKENIZER}, {"label": Labels(("no", "so", "yes"))}
)


def classifier(pooling, kind="recurrent"):
  if kind == "encoder":
    inner = encoder(num_layers=3, positions="learned")
  else:
    layer = lambda **settings: RecurrentLayer("gru", **settings)  # noqa: E731
    inner = RecurrentEncoder(VOCAB_SIZE, 5, layer, 1, 6, bidirectional=True)
  return TextClassifier(inner, 3, pooling, 0.0)


CLASSIFIERS = {
  "recurrent, attention": classifier("attention"),
  "recurrent, last": classifier("last"),
  "encoder, mean": classifier("mean", "encoder"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_attributions_of_classes_are_complete_and_padding_gets_none(name):
  model = CLASSIFIERS[name]
  variables = random_variables(model, TOKENS, MASK)
  x = look_up(variables["params"], TOKENS)

  def score(x_BTE):
    with reading(x_BTE):
      return model.apply(variables, TOKENS, MASK)[:, 1]

  @jax.jit
  def attribute(x):
    at_x = gradients(score, x)
    parts = integrated_gradients(score, x)
    scores = score(x), score(jnp.zeros_like(x))
    return scores, (parts, gradient_times_input(at_x, x), norms(at_x))

  (read, blank), methods = jax.device_get(attribute(x))
  expected = jax.jit(model.apply)(variables, TOKENS, MASK)[:, 1]
  np.testing.assert_allclose(read, expected, rtol=1e-5)
  total = methods[0].sum(axis=1)
  np.testing.assert_allclose(total, read - blank, rtol=1e-3, atol=1e-5)
  assert np.abs(read - blank).min() > 0.01
  for parts in methods:
    assert (parts[~MASK] == 0).all()
    assert (np.abs(parts[MASK]) > 1e-7).all()


def test_attributions_of_a_linear_score_are_its_terms():
  weights, x = np.random.default_rng(0).normal(size=(2, 2, 4, 3))
  score = lambda x: jnp.sum(weights * x, axis=(1, 2))  # noqa: E731
  x = jnp.array(x)
  terms = (weights * x).sum(axis=-1)
  at_x = gradients(score, x)
  np.testing.assert_allclose(gradient_times_input(at_x, x), terms, rtol=1e-5)
  parts = integrated_gradients(score, x, num_points=2)
  np.testing.assert_allclose(parts, terms, rtol=1e-5)
  lengths = np.linalg.norm(weights, axis=-1)
  np.testing.assert_allclose(norms(at_x), lengths, rtol=1e-5)


MODELS = {
  "lstm": recurrent("lstm", num_layers=1),
  "transformer": transformer(num_layers=1),
  "scanned": transformer(positions="sinusoidal", layer_execution="scan"),
  "transformer_xl": transformer_xl(num_layers=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_next_tokens_are_explained_and_maps_sum_to_one(name):
  """Of every kind of model; each looks at itself and what is before."""
  model = MODELS[name]
  tokens = TOKENIZER.encode("a b c d e")
  variables = random_variables(model, tokens[None])
  task = types.SimpleNamespace(model=model)
  why = explain_next_token(task, variables, TOKENIZER, "a b c d e", "", 64, 5)

  @jax.jit
  def scores(variables):
    hidden, _ = model.apply(variables, tokens[None])
    return model.apply(variables, hidden, method="logits")[0, -1]

  log_probs = jax.nn.log_softmax(scores(variables))
  assert why.target == TOKENIZER.names()[int(log_probs.argmax())]
  np.testing.assert_allclose(why.log_prob, log_probs.max(), rtol=1e-4)
  moved = why.log_prob - why.blank
  total = why.attributions[INTEGRATED].sum()
  np.testing.assert_allclose(total, moved, rtol=0.02, atol=1e-4)
  assert why.tokens == ["a", "b", "c", "d", "e"]
  layers = dict(lstm=0, transformer=1, scanned=2, transformer_xl=1)
  assert len(why.maps) == layers[name]
  for weights in why.maps.values():
    assert weights.shape == (4, 5, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)
    assert (np.triu(weights, 1) == 0).all()


def test_tokens_are_written_as_they_are_read():
  """And halves of characters as they are named."""
  words = "the list the list"
  known = TOKENIZERS["bpe"].train([words] * 9, 300, 1, lower_case=False)
  model = recurrent("lstm", known.vocab_size)
  variables = random_variables(model, np.zeros((1, 2), int))
  task = types.SimpleNamespace(model=model)
  text = "the list übe"
  why = explain_next_token(task, variables, known, text, " list", 2, None)
  assert why.tokens == ["the", " list", " ", "Ã", "¼", "b", "e"]
  assert why.target == " list"


@pytest.fixture(scope="module")
def why():
  """Why a text is "so"."""
  model = CLASSIFIERS["recurrent, attention"]
  variables = random_variables(model, TOKENS, MASK)

  def predict(variables, batch):
    scores = model.apply(variables, batch["inputs"], batch["mask"])
    return dict(probabilities=jax.nn.softmax(scores))

  task = types.SimpleNamespace(model=model, predict=predict)
  return explain_label(task, variables, KNOWN, "a b $x$", "so", 64, None)


def test_labels_are_explained_with_the_weights_of_pooling(why):
  model = CLASSIFIERS["recurrent, attention"]
  variables = random_variables(model, TOKENS, MASK)
  tokens = TOKENIZER.encode("a b $x$")[None]
  mask = np.ones((1, 3), bool)
  scores = jax.jit(model.apply)(variables, tokens, mask)
  expected = jax.nn.log_softmax(scores)[0, 1]
  np.testing.assert_allclose(why.log_prob, expected, rtol=1e-5)
  assert why.target == "so" and list(why.maps) == ["pool"]
  assert why.maps["pool"].shape == (1, 1, 3)
  np.testing.assert_allclose(why.maps["pool"].sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
  ("explain", "text", "target", "message"),
  [
    (explain_label, "a", "maybe", "no label; choose one of no, so, yes"),
    (explain_label, "a " * 17, "", "17 tokens, more than the 16"),
    (explain_label, " ", "", "the text has no token"),
    (explain_next_token, "a", "zzz", "zzz is no token"),
    (explain_next_token, "a", "a b", "a b is no token"),
    (explain_next_token, "a " * 17, "", "17 tokens, more than the 16"),
  ],
)
def test_what_cannot_be_explained_is_a_sentence(explain, text, target, message):
  task = types.SimpleNamespace(model=transformer(num_layers=1))
  known = KNOWN if explain is explain_label else TOKENIZER
  with pytest.raises(UsageError, match=message):
    explain(task, {}, known, text, target, 4, 16)


def test_attention_maps_are_named_by_layer():
  class Attention(nn.Module):
    @nn.compact
    def __call__(self):
      self.sow("intermediates", "weights", jnp.ones((2, 3, 4, 5)))
      self.sow("intermediates", "other", jnp.ones(3))

  class Pooled(nn.Module):
    @nn.compact
    def __call__(self):
      Attention(name="block_0")()
      self.sow("intermediates", "pooling_weights", jnp.ones((2, 6)))

  _, sown = Pooled().apply({}, mutable=["intermediates"])
  # A scan over layers stacks the weights of all of them: [L, B, H, T, S].
  stacked = {"blocks": {"attention": {"weights": (jnp.ones((2, 1, 3, 4, 5)),)}}}
  maps = attention_maps({**sown["intermediates"], **stacked})
  assert {name: weights.shape for name, weights in maps.items()} == {
    "block_0": (3, 4, 5),
    "pooling": (1, 1, 6),
    "blocks/attention 0": (3, 4, 5),
    "blocks/attention 1": (3, 4, 5),
  }


def test_principal_components_are_those_of_the_covariance():
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + 7.0
  points, shares = principal_components(vectors)
  variances, directions = np.linalg.eigh(np.cov(vectors.T))
  expected = (vectors - vectors.mean(axis=0)) @ directions[:, [-1, -2]]
  np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
  np.testing.assert_allclose(shares, variances[[-1, -2]] / variances.sum())
  assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()


def test_words_are_chosen_by_name_or_from_the_front():
  names, vectors = TOKENIZER.names(), np.arange(11 * 2).reshape(11, 2)
  words, chosen = choose(names, vectors, 2, excluded=names[:4])
  assert words == names[4:6]
  np.testing.assert_array_equal(chosen, vectors[4:6])
  words, chosen = choose(names, vectors, 2, ["c", "a", "b"])
  np.testing.assert_array_equal(
    chosen, vectors[[names.index(w) for w in "cab"]]
  )
  with pytest.raises(UsageError, match="'zzz' is not among the 11 tokens"):
    choose(names, vectors, 2, ["zzz"])


def pixels(png):
  """Unpack what a PNG holds, as bytes, to see that there is something."""
  assert png.startswith(b"\x89PNG")
  place, data = 8, b""
  while place < len(png):
    (size,) = struct.unpack(">I", png[place : place + 4])
    if png[place + 4 : place + 8] == b"IDAT":
      data += png[place + 8 : place + 8 + size]
    place += size + 12
  return np.frombuffer(zlib.decompress(data), np.uint8)


def test_pictures_differ_with_what_they_show():
  """Dollars, line's ends and Chinese are drawn or written by number."""
  tokens = ["a", "$x$", "\n", "中"]
  values = np.array([0.5, -0.25, 0.0, 1.0])
  bars = attribution_bars(tokens, {"one": values, "two": -values})
  assert len(np.unique(pixels(bars))) > 20
  assert bars != attribution_bars(tokens, {"one": -values, "two": values})
  eye = np.eye(4)[None].repeat(5, axis=0)
  assert attention_map(tokens, eye) != attention_map(tokens, eye[:, ::-1])
  assert label("\n") == "↵" and label("$") == "$"
  assert label("中") in ("中", "U+4E2D")


def test_the_page_shades_tokens_and_needs_no_other_file(why):
  text = page(
    dataclasses.replace(why, tokens=["a", "<b>", "$"]), {"one": b"\x89PNG"}
  )
  assert "&lt;b&gt;" in text and "<b>" not in text
  assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
  values = why.attributions[INTEGRATED]
  color = "31,119,180" if values[np.abs(values).argmax()] > 0 else "214,39,40"
  assert f"rgba({color},1.00)" in text
  assert text.count("<span") == 3 * 3
  assert f"{values[0]:+.4f}" in text
  assert f"{values[0]:.3f}" in shown(why)


def test_the_command_writes_a_folder(tiny_config, text_folder, tmp_path):
  config = tiny_config("transformer", **{"train.num_steps": 1})
  config.data.source, config.data.path = "text", str(text_folder)
  assert loop.train(config, tmp_path / "run") == 0
  ended = subprocess.run(
    [
      sys.executable,
      str(ROOT / "scripts" / "explain.py"),
      f"--workdir={tmp_path / 'run'}",
      "--text=7 squa",
      f"--output={tmp_path / 'why'}",
      "--number=9",
      "--num_points=8",
    ],
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr
  assert "integrated gradients" in ended.stdout
  assert ended.stdout.strip().endswith("index.html")
  names = {path.name for path in (tmp_path / "why").iterdir()}
  assert names == {
    "index.html",
    "attributions.png",
    "attention_0.png",
    "attention_1.png",
    "embeddings.png",
  }
  text = (tmp_path / "why" / "index.html").read_text()
  assert text.count("data:image/png;base64,") == 4
  run = Run(tmp_path / "run", overrides={"task": "prefix_lm"})
  with pytest.raises(
    UsageError, match="task=prefix_lm, which makes no predictions that can"
  ):
    run.explain("7 squa")


def test_a_report_has_no_projection_of_two_words(why, tmp_path):
  files = write_report(tmp_path, why, ["a", "b"], np.eye(2))
  names = ["index.html", "attributions.png", "attention_0.png"]
  assert [file.name for file in files] == names
