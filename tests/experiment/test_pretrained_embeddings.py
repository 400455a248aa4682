# SPDX-License-Identifier: Apache-2.0
"""Word vectors of others in the embedding of any model, and read out of it."""

import json

import jax
import numpy as np
import pytest

import lmjax
from lmjax.data.tokenizers import TOKENIZERS
from lmjax.data.word_vectors import write
from lmjax.errors import UsageError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.pretrained_embeddings import (
  learned_vectors,
  read_vectors,
  table_of,
)
from lmjax.experiment.run_dir import RunDir
from lmjax.models.sharding_rules import SHARDING_RULES
from lmjax.optim.averaging import averaged_params
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.training import loop
from lmjax.training.overview import overview

WORDS = ["squared", "</s>", "is", "elsewhere", "17", "<unk>"]
VECTORS = np.arange(6 * 16, dtype=np.float32).reshape(6, 16) - 40


@pytest.fixture
def make_config(tiny_config, text_folder, tmp_path):
  """Return a function that makes configs with vectors of width 16."""
  write(tmp_path / "vectors.txt", WORDS, VECTORS, "glove")

  def make(model="lstm", **changes):
    config = tiny_config(model)
    config.data.source, config.data.path = "text", str(text_folder)
    config.data.split_by, config.data.tokenizer = "name", "word"
    config.pretrained.vectors = str(tmp_path / "vectors.txt")
    config.update_from_flattened_dict(changes)
    return config

  return make


@pytest.mark.parametrize("model", ["lstm", "transformer", "word_vectors"])
def test_finds_embedding_table_of_every_model(model, make_config, tmp_path):
  experiment = Experiment(make_config(model), RunDir(tmp_path / "run"))
  params = jax.eval_shape(experiment.make_state).params
  assert table_of(params, model).shape == (experiment.tokenizer.vocab_size, 16)
  with pytest.raises(UsageError, match=f"model.name={model} has no embedding"):
    table_of({"output": params["output"]} if "output" in params else {}, model)


@pytest.mark.parametrize(
  ("model", "strategy"),
  [
    (
      "lstm",
      lambda rules: JitStrategy(
        jax.devices()[:4], dict(data=-1, fsdp=2), rules
      ),
    ),
    (
      "word_vectors",
      lambda rules: PmapStrategy(jax.devices()[:2], dict(data=-1)),
    ),
  ],
)
def test_initializes_only_covered_rows_from_vectors(
  model, strategy, make_config, tmp_path
):
  config = make_config(model, **{"optim.ema_decay": 0.5})
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  strategy = strategy(SHARDING_RULES[config.model.name])
  state = strategy.gather(experiment.start(strategy))
  plain = jax.jit(experiment.make_state)()
  names = experiment.tokenizer.names()
  found, expected = (
    np.array(table_of(params, model)) for params in (state.params, plain.params)
  )
  covered = {word: VECTORS[i] for i, word in enumerate(WORDS)}
  covered["\n"] = covered.pop("</s>")
  for token, name in enumerate(names):
    row = covered.get(name, expected[token])
    np.testing.assert_allclose(found[token], row, atol=1e-7, err_msg=name)
  assert len(set(names) & set(covered)) == 5
  average = averaged_params(state.opt_state)
  np.testing.assert_array_equal(table_of(average, model), found)
  others = jax.tree.leaves(state.params), jax.tree.leaves(plain.params)
  differ = sum(not np.allclose(a, b) for a, b in zip(*others, strict=True))
  assert differ == 1


def test_coverage_counts_types_and_tokens(make_config, tmp_path):
  tokenizer = TOKENIZERS["word"].train(
    ["is is\n", "17 more words"], 0, 1, False
  )
  counts = np.zeros(tokenizer.vocab_size, int)
  text = tokenizer.encode("is is\n17 more words unseen is")
  np.add.at(counts, text, 1)
  pretrained = read_vectors(make_config().pretrained.vectors, "auto", tokenizer)
  coverage = pretrained.coverage(counts, tokenizer.text_ids)
  assert coverage["types"] == 3 / 5  # is, line's end, 17; not more, words
  assert coverage["tokens"] == 6 / 8  # and <unk>, which has a vector


def test_frozen_rows_stay_and_resuming_needs_no_file(make_config, tmp_path):
  config = make_config(**{"optim.freeze": "^embedding/"})
  config.optim.schedule, config.train.num_steps = "constant", 3
  assert loop.train(config, tmp_path / "straight") == 0
  config.train.num_steps = 2
  assert loop.train(config, tmp_path / "broken") == 0
  (tmp_path / "vectors.txt").unlink()
  config.train.num_steps = 3
  assert loop.train(config, tmp_path / "broken") == 0
  folders = tmp_path / "straight", tmp_path / "broken"
  straight, broken = (lmjax.load(folder, "latest") for folder in folders)
  jax.tree.map(
    np.testing.assert_array_equal, straight.variables, broken.variables
  )
  names, vectors = broken.vectors
  state = jax.jit(broken.experiment.make_state)()
  before = state.params
  expected = np.array(table_of(before, "lstm"))
  for index, word in enumerate(WORDS):
    if word in names:
      expected[names.index(word)] = VECTORS[index]
  expected[names.index("\n")] = VECTORS[1]
  np.testing.assert_allclose(vectors, expected, rtol=1e-6)
  table = straight.variables["params"]["output"]["table"]
  assert np.abs(table - before["output"]["table"]).max() > 1e-3
  coverage = json.loads((folders[1] / "corpus.json").read_text())["pretrained"]
  text = overview(broken.experiment, state, 1)
  assert f"{coverage['types']:.1%} of the vocabulary" in text
  assert f"{coverage['tokens']:.1%} of the training text" in text


def test_rejects_vectors_of_other_width(make_config, tmp_path):
  config = make_config(**{"model.embedding_width": 7})
  with pytest.raises(UsageError, match="width 16, .* has width 7"):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run" / "config.json").exists()


def test_glove_vectors_sum_both_tables(tiny_config):
  tokenizer = TOKENIZERS["word"].train(["a b\n"], 0, 1, False)
  tables = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
  params = {
    "embedding": {"embedding": tables[0]},
    "output": {"table": tables[1]},
  }
  for task, expected in (("cbow", tables[0]), ("glove", tables.sum(axis=0))):
    config = tiny_config("word_vectors", task=task)
    words, vectors = learned_vectors(params, config, tokenizer)
    assert words == ["a", "b"]  # neither specials nor line's ends
    kept = [tokenizer.names().index(word) for word in words]
    np.testing.assert_allclose(vectors, expected[kept])
  names, _ = learned_vectors(params, tiny_config("lstm"), tokenizer)
  assert names == tokenizer.names()
