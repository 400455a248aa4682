# SPDX-License-Identifier: Apache-2.0
"""A run learns from what another one says of its rows."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.losses import cross_entropy, distillation
from lmjax.train_state import ModelState
from lmjax.training import loop
from lmjax.training.overview import overview
from lmjax.tree import named_leaves
from tests.helpers.configs import table_config

WORDS = ("oh", "one", "two", "three", "four", "five", "six", "seven", "ten")


def lines(numbers, label):
  return "".join(
    f"{label(n)}\tthe number {WORDS[n // 10]} {n % 10}\n" for n in numbers
  )


def parity(n):
  return "odd" if (n // 10) % 2 else "even"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  folder = tmp_path_factory.mktemp("rows")
  (folder / "train.tsv").write_text(lines(range(0, 90, 2), parity))
  (folder / "valid.tsv").write_text(lines(range(1, 90, 2), parity))
  return folder


def distillation_config(path, width=8, **changes):
  config = table_config(path, text="1", label="0")
  config.model.update(width=width, bidirectional=False, dropout=0.0)
  config.classification.update(dropout=0.0, pooling="last")
  config.data.split_by, config.data.test_fraction = "name", 0.0
  config.data.batch_size = 10
  config.optim.update(
    learning_rate=0.02, warmup_steps=0, weight_decay=0.0, schedule="constant"
  )
  config.train.update(num_steps=40, eval_every=0, checkpoint_every=40)
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="module")
def teacher(rows, tmp_path_factory):
  """Train a run that knows the rule."""
  folder = tmp_path_factory.mktemp("teacher") / "run"
  assert loop.train(distillation_config(rows, width=16), folder) == 0
  assert lmjax.load(folder).evaluate("valid")["accuracy"] == 1.0
  return folder


def params_of(folder):
  return named_leaves(lmjax.load(folder, "latest").variables["params"])


def test_distillation_gradient_matches_formula():
  """∂/∂s = τ · (softmax(s/τ) − softmax(t/τ)), as large at any temperature."""
  rng = np.random.default_rng(0)
  scores, teacher = rng.normal(size=(2, 5, 3)).astype(np.float32) * 3
  for temperature in (0.5, 1.0, 4.0):
    found = jax.grad(
      lambda s, t=temperature: distillation(s, teacher, t).sum()
    )(scores)

    def shares(x, t=temperature):
      powers = np.exp(x / t)
      return powers / powers.sum(axis=-1, keepdims=True)

    expected = temperature * (shares(scores) - shares(teacher))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_certain_teacher_equals_hard_label():
  scores = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
  labels = np.array([0, 2, 1, 2])
  certain = jnp.where(jnp.arange(3) == labels[:, None], 100.0, 0.0)
  np.testing.assert_allclose(
    distillation(scores, certain, 1.0), cross_entropy(scores, labels), rtol=1e-5
  )


def test_batches_contain_teacher_logits_of_their_rows(rows, teacher, tmp_path):
  """Row by row as the teacher says it alone, in every epoch; valid has none."""
  config = distillation_config(rows, **{"distill.workdir": str(teacher)})
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  run = lmjax.load(teacher)
  names = experiment.tokenizer.tokenizers["text"].names()
  batches = experiment.corpus.train_batches()
  for index in (0, len(batches) + 1):
    batch = batches[index]
    texts = [
      " ".join(names[t] for t in tokens[mask])
      for tokens, mask in zip(batch["inputs"], batch["mask"], strict=True)
    ]
    said = list(run.predict([{"text": text} for text in texts]))
    probabilities = [list(each["probabilities"].values()) for each in said]
    found = jax.nn.softmax(batch["teacher"])
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
  assert "teacher" not in experiment.corpus.eval_batches("valid")[0]
  assert "teacher" not in experiment.corpus.eval_batches("train")[0]


def test_mixes_distillation_loss_only_in_training(rows, teacher, tmp_path):
  changes = {"distill.workdir": str(teacher), "distill.weight": 0.25}
  config = distillation_config(rows, **changes)
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  task, batch = experiment.task, experiment.corpus.train_batches()[0]
  params = jax.jit(experiment.make_state)().params
  train, judged = (
    task.loss(params, ModelState({}, None), batch, {}, train=train).sums.loss
    for train in (True, False)
  )
  scores = task.scores({"params": params}, batch)
  hard = cross_entropy(scores, batch["targets"]) @ batch["weights"]
  soft = distillation(scores, batch["teacher"], config.distill.temperature)
  soft = soft @ batch["weights"]
  np.testing.assert_allclose(judged, hard, rtol=1e-6)
  np.testing.assert_allclose(train, 0.75 * hard + 0.25 * soft, rtol=1e-6)


def test_zero_weight_opens_no_teacher(rows, teacher, tmp_path):
  changes = {"distill.workdir": str(teacher), "train.num_steps": 3}
  folders = tmp_path / "alone", tmp_path / "none", tmp_path / "half"
  for folder, weight in zip(folders, (0.5, 0.0, 0.5), strict=True):
    config = distillation_config(rows, **changes, **{"distill.weight": weight})
    if folder.name == "alone":
      config.distill.workdir = ""
    assert loop.train(config, folder) == 0
  alone, none, half = map(params_of, folders)
  for name, value in alone.items():
    np.testing.assert_array_equal(none[name], value)
    assert not np.array_equal(half[name], value), name


def test_student_learns_from_teacher_despite_wrong_labels(
  rows, teacher, tmp_path
):
  """All that is right comes from the teacher, where labels weigh nothing."""
  wrong = tmp_path / "wrong"
  wrong.mkdir()
  labels = np.random.default_rng(0).permutation(["odd", "even"] * 23)
  (wrong / "train.tsv").write_text(
    lines(range(0, 90, 2), lambda n: labels[n // 2])
  )
  shutil.copy(rows / "valid.tsv", wrong)
  accuracies = {}
  for name, path in (("alone", ""), ("taught", str(teacher))):
    changes = {"distill.workdir": path, "distill.weight": 1.0}
    config = distillation_config(wrong, **changes)
    assert loop.train(config, tmp_path / name) == 0
    report = lmjax.load(tmp_path / name).evaluate("valid")
    accuracies[name] = report["accuracy"]
  assert accuracies["taught"] == 1.0
  assert accuracies["alone"] < 0.8


def test_resumes_without_teacher_run(rows, teacher, tmp_path):
  """Bit for bit as one that was never interrupted."""
  path = tmp_path / "teacher"
  shutil.copytree(teacher, path)
  config = distillation_config(rows, **{"distill.workdir": str(path)})
  config.train.num_steps = 7
  assert loop.train(config, tmp_path / "straight") == 0
  config.train.num_steps = 4
  assert loop.train(config, tmp_path / "broken") == 0
  shutil.rmtree(path)
  config.train.num_steps = 7
  assert loop.train(config, tmp_path / "broken") == 0
  straight, broken = map(
    params_of, (tmp_path / "straight", tmp_path / "broken")
  )
  for name, value in straight.items():
    np.testing.assert_array_equal(broken[name], value)
  experiment = lmjax.load(tmp_path / "broken").experiment
  text = overview(experiment, jax.eval_shape(experiment.make_state), 1)
  assert f"distilled from step 40 of {path}" in text
  (tmp_path / "broken" / "teacher.npy").unlink()
  config.train.num_steps = 8
  with pytest.raises(UserError, match="teacher.npy cannot be read"):
    loop.train(config, tmp_path / "broken")


def test_rejects_teacher_with_other_labels(rows, teacher, tmp_path):
  other = tmp_path / "other"
  other.mkdir()
  (other / "train.tsv").write_text(
    lines(range(90), lambda n: "small" if n < 50 else "large")
  )
  config = distillation_config(other, **{"distill.workdir": str(teacher)})
  message = "has the labels even, odd, and this run has large, small"
  with pytest.raises(UserError, match=message):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run" / "config.json").exists()


def test_rejects_runs_that_cannot_be_teachers(
  rows, tiny_config, text_folder, teacher, tmp_path
):
  changes = {"data.source": "text", "data.path": str(text_folder)}
  config = tiny_config("lstm", **changes, **{"train.num_steps": 1})
  assert loop.train(config, tmp_path / "lm") == 0
  taught = distillation_config(
    rows, **{"distill.workdir": str(tmp_path / "lm")}
  )
  with pytest.raises(UserError, match="run of task=language_modeling; give a"):
    loop.train(taught, tmp_path / "run")
  config.distill.workdir = str(teacher)
  with pytest.raises(UsageError, match="is not read by task=language_modeling"):
    loop.train(config, tmp_path / "run")
  many = distillation_config(rows, **{"distill.workdir": str(teacher)})
  many.classification.labels = "many"
  with pytest.raises(
    UsageError, match="not supported with classification.labels=many"
  ):
    loop.train(many, tmp_path / "run")
