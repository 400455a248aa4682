# SPDX-License-Identifier: Apache-2.0
"""Word vectors: the objectives and their slopes, written out as loops."""

import functools
import json

import jax
import numpy as np
import pytest

import lmjax
from lmjax.errors import UsageError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.models.sharding_rules import SHARDING_RULES
from lmjax.models.word_vectors import WordVectors
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.prediction.word_similarity import WordSpace
from lmjax.tasks.word_vectors import CBOW, GloVe, SkipGram, near
from lmjax.train_state import ModelState
from lmjax.training import loop
from lmjax.training.step import train_step
from lmjax.tree import named_leaves

B, T, N, D, V, K = 2, 7, 3, 5, 11, 4.0


def batch_of(task):
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, V, (2, B, T)).astype(np.int32)
  if task is GloVe:
    counts = rng.gamma(2.0, 3.0, (B, T)) * (rng.random((B, T)) < 0.8)
    return dict(
      inputs=tokens[0], targets=tokens[1], counts=counts.astype(np.float32)
    )
  gaps = rng.choice([1, 1, 1, 4], (B, T))  # some beyond the longest reach
  reach = rng.integers(0, 4, (B, T))
  return dict(
    inputs=tokens[0],
    positions=gaps.cumsum(axis=1).astype(np.int32),
    reach=reach.astype(np.int32),
    negatives=rng.integers(0, V, (B, N)).astype(np.int32),
    words=np.array([9.0, 10.0], np.float32),
  )


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def tell_apart(p, word_D, good, negatives, loss, slopes):
  """Add −log σ(w·c̃) − K mean log σ(−w·ñ); return its slope in w."""
  out, slope_D = p["output/table"], np.zeros(D)
  terms = [(good, 1.0, 1.0)] + [(n, -1.0, K / N) for n in negatives]
  for max_context, sign, weight in terms:
    score = sign * word_D @ out[max_context]
    loss[0] -= weight * np.log(sigmoid(score))
    pull = -weight * sign * sigmoid(-score)
    slope_D += pull * out[max_context]
    slopes["output/table"][max_context] += pull * word_D
  return slope_D


def contexts(batch, b, t):
  positions, reach = batch["positions"][b], batch["reach"][b, t]
  apart = np.abs(positions - positions[t])
  return [s for s in range(T) if 0 < apart[s] <= reach]


def skip_gram(p, batch, loss, slopes):
  for b, t in np.ndindex(B, T):
    word = batch["inputs"][b, t]
    for s in contexts(batch, b, t):
      vector, good = p["embedding/embedding"][word], batch["inputs"][b, s]
      slopes["embedding/embedding"][word] += tell_apart(
        p, vector, good, batch["negatives"][b], loss, slopes
      )
      loss[1] += 1


def cbow(p, batch, loss, slopes):
  for b, t in np.ndindex(B, T):
    around = [batch["inputs"][b, s] for s in contexts(batch, b, t)]
    if around:
      mean = np.mean([p["embedding/embedding"][word] for word in around], 0)
      good = batch["inputs"][b, t]
      slope_D = tell_apart(p, mean, good, batch["negatives"][b], loss, slopes)
      for word in around:
        slopes["embedding/embedding"][word] += slope_D / len(around)
      loss[1] += 1


def glove(p, batch, loss, slopes):
  for b, t in np.ndindex(B, T):
    i, j = batch["inputs"][b, t], batch["targets"][b, t]
    count = batch["counts"][b, t]
    if count:
      w, c = p["embedding/embedding"][i], p["output/table"][j]
      miss = w @ c + p["bias"][i] + p["output/bias"][j] - np.log(count)
      share = min(1.0, count / 6.0) ** 0.5
      loss[0] += share * miss**2
      loss[1] += 1
      slopes["embedding/embedding"][i] += 2 * share * miss * c
      slopes["output/table"][j] += 2 * share * miss * w
      slopes["bias"][i] += 2 * share * miss
      slopes["output/bias"][j] += 2 * share * miss


@pytest.mark.parametrize(
  ("task", "options", "by_hand"),
  [
    (SkipGram, dict(num_negatives=K), skip_gram),
    (CBOW, dict(num_negatives=K), cbow),
    (GloVe, dict(x_max=6.0, weight_exponent=0.5), glove),
  ],
)
def test_the_objective_and_its_slope_equal_a_loop(task, options, by_hand):
  batch = batch_of(task)
  model = WordVectors(V, D, use_biases=task is GloVe)
  objective = task(model, **options)
  shapes = jax.eval_shape(objective.init, jax.random.key(0), batch)["params"]
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )

  def loss(params):
    sums = objective.loss(
      params, ModelState({}, None), batch, {}, train=True
    ).sums
    return sums.loss, sums

  slopes, sums = jax.jit(jax.grad(loss, has_aux=True))(params)
  flat = {k: np.float64(v) for k, v in named_leaves(params).items()}
  expected = {k: np.zeros(v.shape) for k, v in flat.items()}
  total = [0.0, 0]
  by_hand(flat, batch, total, expected)
  np.testing.assert_allclose(sums.loss, total[0], rtol=1e-5)
  if task is GloVe:
    assert sums.weight == total[1] < B * T
  else:
    assert sums.metrics["pairs"] == total[1] > 0 and sums.weight == 19
  found = named_leaves(slopes)
  assert found.keys() == expected.keys()
  for name, slope in expected.items():
    np.testing.assert_allclose(found[name], slope, atol=1e-4, err_msg=name)


def test_near_is_what_its_docstring_says():
  found = near(np.array([[0, 1, 9, 10]]), np.array([[2, 1, 1, 0]]))
  expected = np.zeros((1, 4, 4), bool)
  expected[0, 0, 1] = expected[0, 1, 0] = expected[0, 2, 3] = True
  np.testing.assert_array_equal(found, expected)


def train(experiment, strategy, num_microbatches=1):
  """Take two steps; return the parameters and the means of the last."""
  state = strategy.create(experiment.make_state)
  step = strategy.compile_step(
    functools.partial(
      train_step,
      task=experiment.task,
      optimizer=experiment.optimizer,
      num_microbatches=num_microbatches,
    ),
    state,
  )
  batches = experiment.corpus.train_batches()
  for index in range(2):
    state, sums = step(state, strategy.shard_batch(batches[index]))
  params = jax.device_get(strategy.gather(state).params)
  return named_leaves(dict(params=params, **sums.means()))


@pytest.mark.parametrize(
  ("task", "strategy", "parts"),
  [("skip_gram", PmapStrategy, 2), ("glove", JitStrategy, 1)],
)
def test_however_it_is_divided_the_same_numbers_come_out(
  task, strategy, parts, tiny_config, tmp_path
):
  config = tiny_config("word_vectors", task=task)
  experiment = Experiment(config, RunDir(tmp_path))
  expected = train(experiment, JitStrategy(jax.devices()[:1], dict(data=-1)))
  mesh = dict(data=-1, fsdp=2 if strategy is JitStrategy else 1)
  rules = SHARDING_RULES["word_vectors"]
  devices = strategy(jax.devices()[:2], mesh, rules)
  found = train(experiment, devices, parts)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_a_run_shows_neighbours_and_writes_no_text(
  tiny_config, text_folder, tmp_path
):
  config = tiny_config("word_vectors", **{"train.preview_every": 4})
  config.data.source, config.data.path = "text", str(text_folder)
  config.data.split_by, config.data.tokenizer = "name", "word"
  config.preview.prompt, config.preview.num_tokens = "squared and", 3
  assert loop.train(config, tmp_path / "run") == 0
  records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())
  (sample,) = [r["text"] for r in records if r["split"] == "preview"]
  run = lmjax.load(tmp_path / "run", "latest")
  space = WordSpace(*run.vectors)
  lines = [space.describe(word, 3) for word in ("squared", "and")]
  assert sample == "\n".join(lines)
  with pytest.raises(
    UsageError, match="skip_gram does not generate text; use .*embed.py"
  ):
    run.generate("squared")
  config.preview.prompt = "squared snark"
  with pytest.raises(UsageError, match="'snark', which is not in the vocab"):
    loop.train(config, tmp_path / "new")
