# SPDX-License-Identifier: Apache-2.0
import math
import shutil

import jax
import numpy as np
import pytest

from lmjax.config.finalize import finalize
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.run import Run
from lmjax.training import loop
from tests.helpers.configs import table_config
from tests.helpers.predictors import predictor_of
from tests.helpers.run_dirs import train_run
from tests.helpers.variables import scaled_variables

WORDS = ["good", "bad", "film", "plot", "long", "!"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, n)) for n in RNG.integers(1, 40, 60)]
ROWS = [dict(text=text, label=text.split()[0]) for text in TEXTS]


def classifier_config(work_dir, **changes):
  """A tiny classifier of the first word, with its data."""
  lines = [f"{row['text']}\t{row['label']}\n" for row in ROWS]
  (work_dir / "data.tsv").write_text("".join(lines))
  config = table_config(work_dir / "data.tsv")
  config.model.update(dict(width=8, cell="gru", bidirectional=False))
  config.data.update(dict(batch_size=8, num_buckets=2))
  config.optim.update(dict(warmup_steps=2, schedule="constant"))
  config.train.update(
    dict(num_steps=6, log_every=3, eval_every=6, checkpoint_every=3)
  )
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
  work_dir = tmp_path_factory.mktemp("experiment")
  config = finalize(classifier_config(work_dir))
  return Experiment(config, RunDir(work_dir / "run"))


@pytest.fixture(scope="module")
def variables(experiment):
  """Variables that are large enough for predictions to differ."""
  return scaled_variables(experiment, scale=4.0)


def predict(experiment, variables, rows, batch_size):
  predictor = predictor_of(experiment, batch_size)
  places = [(f"row {n}", row) for n, row in enumerate(rows)]
  return list(predictor(variables, places))


def scores(pairs) -> np.ndarray:
  return np.array([list(made["probabilities"].values()) for _, made in pairs])


def test_predictions_are_independent_of_batch_and_order(experiment, variables):
  alone = scores(predict(experiment, variables, ROWS, 1))
  assert np.ptp(alone, axis=0).max() > 0.1
  for batch_size in (7, 64):
    pairs = predict(experiment, variables, ROWS, batch_size)
    assert [row for row, _ in pairs] == ROWS
    np.testing.assert_allclose(scores(pairs), alone, atol=1e-5)
  order = RNG.permutation(len(ROWS))
  mixed = predict(experiment, variables, [ROWS[i] for i in order], 7)
  np.testing.assert_allclose(scores(mixed), alone[order], atol=1e-5)


def test_predictions_ignore_labels_of_rows(experiment, variables):
  rows = [dict(text=text, label="never seen") for text in TEXTS[:3]]
  asked = [dict(text=text) for text in TEXTS[:3]]
  with_labels = scores(predict(experiment, variables, rows, 2))
  without = scores(predict(experiment, variables, asked, 2))
  np.testing.assert_array_equal(with_labels, without)


def test_probabilities_are_by_label_and_sum_to_one(experiment, variables):
  names = experiment.corpus.tokenizer.labels["label"].names
  for _, made in predict(experiment, variables, ROWS, 8):
    assert tuple(made["probabilities"]) == names
    assert math.isclose(sum(made["probabilities"].values()), 1, rel_tol=1e-5)
    assert made["label"] == max(names, key=made["probabilities"].get)


def test_yields_predictions_when_a_batch_is_full(experiment, variables):
  read = []

  def rows():
    for number, row in enumerate(ROWS[:5]):
      read.append(number)
      yield f"row {number}", row

  answers = predictor_of(experiment, 2)(variables, rows())
  seen = []
  for _ in answers:
    seen.append(len(read))
  assert seen == [2, 2, 4, 4, 5]


def test_reports_and_skips_malformed_rows(experiment, variables):
  rows = [("a:1", ROWS[0]), ("a:2", dict(text=" ")), ("a:3", ROWS[1])]
  problems = []
  pairs = list(predictor_of(experiment, 8)(variables, rows, problems.append))
  assert [row for row, _ in pairs] == ROWS[:2]
  assert [tuple(problem) for problem in problems] == [
    ("a:2", "its text is empty")
  ]
  with pytest.raises(UserError, match="a:2: its text is empty"):
    list(predictor_of(experiment, 8)(variables, rows))


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
  """A directory with data and a run of six steps."""
  work_dir = tmp_path_factory.mktemp("trained")
  train_run(classifier_config(work_dir), work_dir / "run")
  return work_dir


@pytest.fixture(scope="module")
def run(work_dir):
  return Run(work_dir / "run")


def test_predicts_without_training_data(work_dir):
  run = Run(work_dir / "run", overrides={"data.path": "nowhere.tsv"})
  made = list(run.predict(dict(text=text) for text in TEXTS))
  assert len(made) == len(TEXTS)
  assert {each["label"] for each in made} <= set(WORDS)


def test_numbers_malformed_rows_from_one(run):
  with pytest.raises(
    UserError, match="^row 2: its text is empty; correct it.$"
  ):
    list(run.predict([dict(text="a"), dict(text="")]))
  with pytest.raises(UserError, match="^row 1: .* is not one of its columns"):
    list(run.predict([dict(label="a")]))


def test_truncates_long_texts_as_in_training(run):
  seq_len = run.experiment.config.data.seq_len
  words = ["good", "bad"] * seq_len
  whole, cut = run.predict(
    [dict(text=" ".join(words)), dict(text=" ".join(words[:seq_len]))]
  )
  assert whole == cut


def test_accuracy_is_the_fraction_of_correct_predictions(run):
  rows = [row for _, row in run.experiment.corpus.rows("train")]
  made = run.predict(rows)
  right = [
    row["label"] == each["label"] for row, each in zip(rows, made, strict=True)
  ]
  report = run.evaluate("train")
  assert report["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)


def test_resumes_within_an_epoch(work_dir, tmp_path):
  whole = Run(work_dir / "run", 6)
  assert 3 % len(whole.experiment.corpus.train_batches()) != 0
  for num_steps in (3, 6):
    config = classifier_config(tmp_path, **{"train.num_steps": num_steps})
    assert loop.train(config, tmp_path / "run") == 0
  parts = Run(tmp_path / "run", 6)
  for a, b in zip(
    jax.tree.leaves(whole.variables),
    jax.tree.leaves(parts.variables),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_rejects_another_corpus(work_dir, tmp_path):
  shutil.copytree(work_dir / "run", tmp_path / "run")
  config = classifier_config(tmp_path)
  with open(tmp_path / "data.tsv", "a") as file:
    file.write("good film\tgood\n")
  changed = {"data.path": str(tmp_path / "data.tsv")}
  with pytest.raises(UserError, match="the corpus has changed since the run"):
    Run(tmp_path / "run", overrides=changed).evaluate("valid")
  with pytest.raises(UserError, match="the corpus has changed since the run"):
    loop.train(config, tmp_path / "run")


def test_rejects_another_vocabulary(work_dir, tmp_path):
  shutil.copytree(work_dir / "run", tmp_path / "run")
  path = tmp_path / "run" / "tokenizer.json"
  path.write_text(path.read_text().replace("film", "flim"))
  with pytest.raises(UserError, match="has another vocabulary than"):
    Run(tmp_path / "run")


def test_rejects_overrides_of_unknown_keys(work_dir):
  with pytest.raises(UsageError, match="has no config key data.order"):
    Run(work_dir / "run", overrides={"data.order": "stateful"})


def test_rejects_prediction_by_language_models(tiny_config, tmp_path):
  loop.train(tiny_config("ngram"), tmp_path / "run")
  with pytest.raises(
    UsageError, match="is a run of task=language_modeling, which"
  ):
    list(Run(tmp_path / "run").predict([dict(text="a")]))
