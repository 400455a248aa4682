# SPDX-License-Identifier: Apache-2.0
"""A run that classifies: resumed, judged, predicted from, divided."""

import functools
import json

import jax
import numpy as np
import pytest

import lmjax
from lmjax.config.finalize import finalize
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.training import hooks, loop
from lmjax.training.step import eval_step, train_step
from lmjax.tree import named_leaves
from tests.conftest import TINY
from tests.helpers.configs import table_config

WORDS = {"number": "one two three four five six", "color": "red green blue"}


@pytest.fixture(scope="module")
def labeled_tables(tmp_path_factory):
  """Texts about numbers or colors, of several lengths."""
  labeled_tables, rng = (
    tmp_path_factory.mktemp("classes"),
    np.random.default_rng(0),
  )

  def line():
    label = list(WORDS)[rng.integers(0, 3) % 2]  # two to one
    words = rng.choice(
      WORDS[label].split() + ["a", "the"] * 3, rng.integers(2, 12)
    )
    return f"{label}\t{' '.join(words)}\n"

  for split, number in (("train", 90), ("valid", 27), ("test", 21)):
    text = "".join(line() for _ in range(number))
    (labeled_tables / f"{split}.tsv").write_text(text)
  return labeled_tables


def classifier_config(labeled_tables, model="bag_of_ngrams", **changes):
  config = table_config(labeled_tables, model, text="1", label="0")
  config.model.update(TINY[model])
  config.data.update(
    split_by="name",
    batch_size=8,
    num_buckets=2,
    cache_dir=str(labeled_tables / "cache"),
  )
  config.optim.update(warmup_steps=2, learning_rate=1e-2)
  config.train.update(
    num_steps=9, log_every=3, eval_every=4, checkpoint_every=4
  )
  config.update_from_flattened_dict(changes)
  return config


class Stop(Exception):
  pass


class CrashAt:
  every = 1

  def __init__(self, step):
    self.step = step

  def __call__(self, session):
    if session.step == self.step:
      session.checkpoints.wait()
      raise Stop


def records(workdir, split):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  found = map(json.loads, lines)
  return [
    {k: v for k, v in record.items() if k != "tokens_per_second"}
    for record in found
    if record["split"] == split
  ]


@pytest.fixture(scope="module")
def trained(labeled_tables, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("trained") / "run"
  config = classifier_config(
    labeled_tables, **{"checkpoint.metric": "macro_f1"}
  )
  assert loop.train(config, workdir) == 0
  return config, workdir


def test_resumed_equals_uninterrupted(trained, tmp_path):
  """With sums that are arrays in the window when it stops."""
  config, straight = trained
  with pytest.raises(Stop):
    loop.train(config, tmp_path / "run", [CrashAt(7)])
  assert loop.train(config, tmp_path / "run") == 0
  for split in ("train", "valid"):
    assert records(tmp_path / "run", split) == records(straight, split)
  runs = [lmjax.load(w, "latest") for w in (straight, tmp_path / "run")]
  ours, theirs = (named_leaves(run.variables) for run in runs)
  for name, leaf in ours.items():
    np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def test_records_hold_numbers_and_evaluation_tables_too(trained):
  _, workdir = trained
  record = records(workdir, "valid")[-1]
  assert all(isinstance(v, int | float | str) for v in record.values())
  report = lmjax.load(workdir, "latest").evaluate("valid")
  for name in ("loss", "accuracy", "macro_f1", "expected_calibration_error"):
    np.testing.assert_allclose(record[name], report[name], rtol=1e-5)
  assert set(report["classes"]) == set(report["confusion"]) == set(WORDS)
  json.dumps(report)


def test_predictions_have_the_accuracy_of_the_evaluation(
  trained, labeled_tables
):
  _, workdir = trained
  run = lmjax.load(workdir)
  lines = (labeled_tables / "test.tsv").read_text().splitlines()
  rows = [
    dict(zip(("label", "text"), line.split("\t"), strict=True))
    for line in lines
  ]
  texts = [dict(text=row["text"]) for row in rows]
  for batch_size in (0, 5):
    right = [
      made["label"] == row["label"]
      for made, row in zip(run.predict(texts, batch_size), rows, strict=True)
    ]
    report = run.evaluate("test")
    np.testing.assert_allclose(np.mean(right), report["accuracy"], rtol=1e-6)
  first = next(iter(run.predict(texts)))
  assert first["label"] == max(
    first["probabilities"], key=first["probabilities"].get
  )


@pytest.mark.parametrize(
  ("metric", "best", "last"), [("loss", 2, 4), ("accuracy", 3, 5)]
)
def test_the_best_is_by_the_figure_that_is_named(
  metric, best, last, labeled_tables, tmp_path, monkeypatch
):
  """Patience goes by it too."""
  reports = [
    dict(loss=loss, accuracy=accuracy)
    for loss, accuracy in ((5, 0.1), (3, 0.2), (4, 0.9), (6, 0.8), (7, 0.7))
  ]

  class Judge:
    def __init__(self, *_):
      self.reports = iter(reports)

    def metric_names(self, _):
      return list(reports[0])

    def __call__(self, *_):
      return next(self.reports)

  monkeypatch.setattr(hooks, "Evaluator", Judge)
  changes = {
    "train.eval_every": 1,
    "train.num_steps": 8,
    "train.early_stopping_patience": 2,
  }
  config = classifier_config(
    labeled_tables, **changes, **{"checkpoint.metric": metric}
  )
  assert loop.train(config, tmp_path / "run") == 0
  assert records(tmp_path / "run", "valid")[-1]["step"] == last
  assert lmjax.load(tmp_path / "run").step == best
  assert lmjax.load(tmp_path / "run", "latest").step == last


def test_a_figure_that_is_not_there_is_named_before_training(
  labeled_tables, tmp_path
):
  config = classifier_config(labeled_tables, **{"checkpoint.metric": "f2"})
  with pytest.raises(UserError, match="metric=f2 is not a metric.*macro_f1"):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_label_selects_the_checkpoint_by_its_f1(labeled_tables, tmp_path):
  label = next(iter(WORDS))
  config = classifier_config(
    labeled_tables, **{"checkpoint.metric": f"f1.{label}"}
  )
  assert loop.train(config, tmp_path / "run") == 0
  rows = records(tmp_path / "run", "valid")
  scores = {row["step"]: row[f"f1.{label}"] for row in rows}
  best = lmjax.load(tmp_path / "run").step
  assert scores[best] == max(scores.values())


def test_batches_of_one_length_have_the_loss_of_many(labeled_tables, tmp_path):
  """Bucketed or padded to the longest, a split is judged alike."""
  reports = []
  for number, num_buckets in enumerate((1, 4)):
    config = classifier_config(
      labeled_tables, **{"data.num_buckets": num_buckets}
    )
    experiment = Experiment(finalize(config), RunDir(tmp_path / str(number)))
    strategy = loop.make_strategy(config)
    batches = experiment.corpus.eval_batches("valid")
    assert len(batches.shapes) == (1 if num_buckets == 1 else 2)
    state = strategy.create(experiment.make_state)
    reports.append(loop.Evaluate(experiment, strategy)._evaluator(state))
  assert reports[0].keys() == reports[1].keys()
  for name in ("loss", "accuracy", "macro_f1", "expected_calibration_error"):
    np.testing.assert_allclose(reports[0][name], reports[1][name], rtol=1e-5)


def test_pmap_and_meshes_equal_one_device(labeled_tables, tmp_path):
  config = classifier_config(labeled_tables, **{"classification.dropout": 0.0})
  experiment = Experiment(finalize(config), RunDir(tmp_path))

  def run(strategy):
    state = strategy.create(experiment.make_state)
    step = strategy.compile_step(
      functools.partial(
        train_step,
        task=experiment.task,
        optimizer=experiment.optimizer,
        num_microbatches=1,
      ),
      state,
      donate=False,
    )
    evaluate = strategy.compile_step(
      functools.partial(eval_step, task=experiment.task), state, donate=False
    )
    last = experiment.corpus.eval_batches("valid")
    uneven = last[len(last) - 1]
    assert (uneven["weights"] == 0).any()
    results = dict(judged=evaluate(state, strategy.shard_batch(uneven))[1])
    batch = experiment.corpus.train_batches()[0]
    state, results["learned"] = step(state, strategy.shard_batch(batch))
    results["params"] = strategy.gather(state).params
    return jax.device_get(results)

  devices = jax.devices()
  expected = run(JitStrategy(devices[:1], dict(data=-1)))
  for strategy in (
    PmapStrategy(devices[:4], dict(data=-1)),
    JitStrategy(devices[:4], dict(data=-1)),
  ):
    results = run(strategy)
    for a, b in zip(*map(jax.tree.leaves, (results, expected)), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"criterion": "nats"}, "criterion=nats is not known; choose one of cross"),
    ({"labels": "some"}, "labels=some is not known; choose one of one, many"),
    ({"labels": "many"}, "=cross_entropy needs exactly one label"),
    (
      {"labels": "many", "criterion": "hinge", "class_weights": "balanced"},
      "class_weights=balanced needs exactly one label",
    ),
    ({"class_weights": "even"}, "class_weights=even is not known"),
    ({"pooling": "median"}, "pooling=median is not known; choose one of last"),
  ],
)
def test_settings_that_cannot_be_are_sentences(
  labeled_tables, changes, message
):
  changes = {f"classification.{k}": v for k, v in changes.items()}
  with pytest.raises(UsageError, match=message):
    finalize(classifier_config(labeled_tables, **changes))


def test_what_a_loss_does_not_read_is_refused(labeled_tables):
  changes = {"loss.label_smoothing": 0.1, "classification.criterion": "focal"}
  with pytest.raises(UsageError, match="label_smoothing=0.1 is not read by"):
    finalize(classifier_config(labeled_tables, **changes))


def test_many_labels_are_learned_from_and_named(labeled_tables, tmp_path):
  path = tmp_path / "many.tsv"
  lines = ["a, b\tone red", "\tthe a", "a\tone two", "b\tred the", "b\tblue"]
  path.write_text("".join(f"{line} {n}\n" for n, line in enumerate(lines * 9)))
  config = classifier_config(labeled_tables, **{"data.path": str(path)})
  config.data.split_by = "ratio"
  config.classification.labels = "many"
  config.classification.criterion = "binary_cross_entropy"
  assert loop.train(config, tmp_path / "run") == 0
  run = lmjax.load(tmp_path / "run")
  (made,) = run.predict([dict(text="one red")])
  assert list(made["probabilities"]) == ["a", "b"]
  likely = [name for name, p in made["probabilities"].items() if p > 0.5]
  assert made["labels"] == likely
  assert run.evaluate("train")["classes"]["b"]["share"] > 0.4
