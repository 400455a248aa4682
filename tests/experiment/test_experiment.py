# SPDX-License-Identifier: Apache-2.0
import shutil

import jax
import numpy as np
import pytest

from lmjax.data.sources import text_sources
from lmjax.errors import UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir


def text_config(tiny_config, text_folder, **changes):
  config = tiny_config("lstm", **changes)
  config.data.source, config.data.path = "text", str(text_folder / "train.txt")
  return config


def describe(config, folder):
  experiment = Experiment(config, RunDir(folder))
  corpus = experiment.describe_corpus()
  experiment.corpus.eval_batches("valid")
  folder.mkdir(exist_ok=True)
  experiment.folder.write(config, experiment.tokenizer, corpus)
  (folder / "checkpoints" / "1").mkdir(parents=True)  # the run has begun
  return corpus


def test_reopening_a_run_reads_no_text(
  tiny_config, text_folder, tmp_path, monkeypatch
):
  config = text_config(tiny_config, text_folder)
  corpus = describe(config, tmp_path / "run")

  def refuse(path):
    raise AssertionError(f"{path} was read again")

  monkeypatch.setattr(text_sources, "read_bytes", refuse)
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  assert experiment.describe_corpus() == corpus
  batch = experiment.corpus.train_batches()[0]
  assert batch["inputs"].shape == (8, 8)
  assert len(experiment.corpus.eval_batches("valid")) > 1


def test_runs_share_encoded_data_in_cache_dir(
  tiny_config, text_folder, tmp_path, monkeypatch
):
  cache = {"data.cache_dir": str(tmp_path / "cache")}
  config = text_config(tiny_config, text_folder, **cache)
  describe(config, tmp_path / "one")
  before = set((tmp_path / "cache").rglob("*"))
  describe(config, tmp_path / "two")
  assert set((tmp_path / "cache").rglob("*")) == before
  assert not (tmp_path / "one" / "cache").exists()


def test_rejects_changed_corpus(tiny_config, text_folder, tmp_path):
  (tmp_path / "train.txt").write_text("some text " * 99)
  config = text_config(tiny_config, tmp_path)
  describe(config, tmp_path / "run")
  (tmp_path / "train.txt").write_text("same text " * 99)
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  with pytest.raises(UserError, match="corpus has changed"):
    experiment.check_corpus()


def test_error_names_empty_split(tiny_config, text_folder, tmp_path):
  config = text_config(tiny_config, text_folder, **{"data.test_fraction": 0.0})
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  with pytest.raises(UserError, match="no text in split test.*test_fraction"):
    experiment.corpus.stream("test")


@pytest.mark.parametrize("tokenizer", ["byte", "character", "word", "bpe"])
def test_every_tokenizer_trains_a_model(
  tokenizer, tiny_config, text_folder, tmp_path
):
  changes = {"data.tokenizer": tokenizer, "data.vocab_size": 300}
  config = text_config(tiny_config, text_folder, **changes)
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  batch = experiment.corpus.train_batches()[0]
  state = jax.eval_shape(experiment.make_state)
  table = state.params["embedding"]["embedding"]
  assert table.shape[0] == experiment.tokenizer.vocab_size
  assert np.max(batch["targets"]) < table.shape[0]


def test_equal_seeds_make_equal_parameters(tiny_config, tmp_path):
  def params(seed):
    config = tiny_config("lstm", seed=seed)
    experiment = Experiment(config, RunDir(tmp_path / str(seed)))
    return jax.tree.leaves(jax.jit(experiment.make_state)().params)

  same = zip(params(0), params(0), strict=True)
  assert all(np.array_equal(a, b) for a, b in same)
  other = zip(params(0), params(1), strict=True)
  assert not all(np.array_equal(a, b) for a, b in other)


def test_run_without_checkpoint_accepts_another_config(
  tiny_config, text_folder, tmp_path
):
  config = text_config(tiny_config, text_folder)
  describe(config, tmp_path / "run")
  folder = RunDir(tmp_path / "run")
  config.model.width = 99
  with pytest.raises(UserError, match="another config: model.width"):
    folder.check(config)
  shutil.rmtree(tmp_path / "run" / "checkpoints")
  folder.check(config)
  folder.tokenizer.write_text("half a to")
  assert Experiment(config, folder).tokenizer.vocab_size > 10
