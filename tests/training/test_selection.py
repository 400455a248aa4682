# SPDX-License-Identifier: Apache-2.0
"""Every metric that a task reports can select the best checkpoint."""

import json

import pytest

import lmjax
from lmjax.errors import UserError
from lmjax.metrics.metric import find_metric
from lmjax.training import loop

CASES = [
  ("recurrent_seq2seq", "seq2seq", "bleu"),
  # By default, one metric that is maximized and one that is minimized.
  pytest.param("recurrent_seq2seq", "seq2seq", "chrf", marks=pytest.mark.slow),
  pytest.param(
    "recurrent_seq2seq", "seq2seq", "rougeL", marks=pytest.mark.slow
  ),
  pytest.param(
    "recurrent_seq2seq", "seq2seq", "exact_match", marks=pytest.mark.slow
  ),
  ("recurrent_seq2seq", "seq2seq", "token_error_rate"),
  ("recurrent_encoder", "tagging", "f1.NAME"),
  ("bag_of_ngrams", "matching", "mrr"),
]


def run_config(tiny_config, model, task, metric):
  changes = {
    "task": task,
    "data.train_fraction": 0.02,
    "train.num_steps": 3,
    "train.eval_every": 1,
    "train.eval_batches": 1,
    "optim.learning_rate": 0.3,
    "checkpoint.metric": metric,
    "checkpoint.keep_best": 1,
  }
  config = tiny_config(model, **changes)
  if task == "seq2seq":
    config.seq2seq.metrics = "bleu,chrf,rouge,exact_match,token_error_rate"
    config.seq2seq.max_target_length = 4
  return config


@pytest.mark.parametrize(("model", "task", "metric"), CASES)
def test_metrics_of_predictions_select_the_best_checkpoint(
  model, task, metric, tiny_config, tmp_path
):
  config = run_config(tiny_config, model, task, metric)
  assert loop.train(config, tmp_path / "run") == 0
  rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())
  rows = [row for row in rows if row["split"] == "valid"]
  experiment = lmjax.load(tmp_path / "run").experiment
  chosen = find_metric(metric, experiment.renderer.directions)
  scores = {row["step"]: chosen.score(row[metric]) for row in rows}
  best = lmjax.load(tmp_path / "run").step
  assert len(rows) == 3 and scores[best] == min(scores.values())


def test_a_metric_of_no_task_is_an_error_that_lists_all(tiny_config, tmp_path):
  config = run_config(tiny_config, "recurrent_seq2seq", "seq2seq", "blue")
  with pytest.raises(UserError, match="metric=blue is not .* loss, .* bleu"):
    loop.train(config, tmp_path / "run")
