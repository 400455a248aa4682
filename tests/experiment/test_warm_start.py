# SPDX-License-Identifier: Apache-2.0
"""A new run starts from the parameters and the tokenizer of another run."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.config import defaults
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.experiment.warm_start import SourceRun
from lmjax.models.sharding_rules import SHARDING_RULES
from lmjax.optim.averaging import averaged_params
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.training import loop
from lmjax.training.overview import overview
from lmjax.tree import named_leaves

TEXT = {"data.tokenizer": "word", "train.num_steps": 2, "train.eval_every": 0}


@pytest.fixture(scope="module")
def source_runs(tiny_config, text_folder, tmp_path_factory):
  """Train each source run once."""
  folder = tmp_path_factory.mktemp("source_runs")

  def source_run(model, name="", **changes):
    path = folder / (name or model)
    if not path.exists():
      config = tiny_config(model, **TEXT, **changes)
      config.data.source, config.data.path = "text", str(text_folder)
      config.data.split_by = "name"
      assert loop.train(config, path) == 0
    return path

  return source_run


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  """Write records some of whose words occur in the text."""
  path = tmp_path_factory.mktemp("rows") / "rows.tsv"
  lines = [
    f"{'odd' if n % 2 else 'even'}\t{n} squared is new" for n in range(60)
  ]
  path.write_text("\n".join(lines))
  return path


def text_config(tiny_config, text_folder, model, source_run, **changes):
  config = tiny_config(model, **TEXT)
  config.data.source, config.data.path = "text", str(text_folder)
  config.data.split_by, config.init.workdir = "name", str(source_run)
  config.data.tokenizer = (
    "byte"  # the tokenizer of the source run is used instead
  )
  config.update_from_flattened_dict(changes)
  return config


def classifier(
  tiny_config, rows, source_run, model="recurrent_encoder", **changes
):
  config = defaults.get_config(model=model, task="classification")
  sizes = dict(num_layers=1, width=16)
  if model == "encoder":
    sizes = dict(num_layers=2, num_heads=2, width=16, max_context=8)
  config.model.update(sizes)
  config.data.source, config.data.path = "tsv", str(rows)
  config.data.columns = dict(text="1", label="0")
  config.data.seq_len, config.data.batch_size = 8, 8
  config.parallel.num_devices = 1
  config.train.update(num_steps=2, eval_every=0, preview_every=0)
  config.train.checkpoint_every = 2
  config.optim.warmup_steps = 0
  config.init.workdir = str(source_run)
  config.update_from_flattened_dict(changes)
  return config


def begin(config, folder, strategy=None):
  strategy = strategy or JitStrategy(jax.devices()[:1], dict(data=-1))
  experiment = Experiment(config, RunDir(folder))
  return experiment, strategy.gather(experiment.start(strategy))


def params_of(folder):
  return named_leaves(lmjax.load(folder, "latest").variables["params"])


def check_taken(state, source_run, expected):
  """Check that these paths, and no others, have the values of the source."""
  ours, theirs = named_leaves(state.params), params_of(source_run)
  for name, leaf in ours.items():
    same = name in theirs and np.array_equal(leaf, theirs[name])
    assert same == (name in expected), name
  assert set(expected) <= set(ours)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_language_model_layers_initialize_text_encoder(
  cell, source_runs, rows, tiny_config, tmp_path
):
  source_run = source_runs(cell)
  config = classifier(tiny_config, rows, source_run, **{"model.cell": cell})
  experiment, state = begin(config, tmp_path / "run")
  layer = [n for n in params_of(source_run) if n.startswith("layer_0/")]
  assert len(layer) >= 3
  check_taken(state, source_run, ["embedding/embedding", *layer])
  tokenizers = (
    experiment.corpus.text_tokenizer,
    RunDir(source_run).load_tokenizer(),
  )
  assert tokenizers[0].fingerprint == tokenizers[1].fingerprint
  assert tokenizers[0].encode("new")[0] == 1  # <unk> to the other run


def test_masked_lm_blocks_initialize_classifier(
  source_runs, rows, tiny_config, tmp_path
):
  source_run = source_runs("encoder")
  config = classifier(tiny_config, rows, source_run, model="encoder")
  experiment, state = begin(config, tmp_path / "run")
  theirs = params_of(source_run)
  check_taken(
    state, source_run, [n for n in theirs if not n.startswith("output")]
  )
  report = experiment.warm_start.report
  assert [name.split("/")[0] for name in report["new"]] == ["classifier"] * 2
  sizes = {name: leaf.size for name, leaf in named_leaves(state.params).items()}
  taken = sum(sizes[name] for name in report["taken"])
  np.testing.assert_allclose(report["fraction"], taken / sum(sizes.values()))
  assert 0.5 < report["fraction"] < 1.0


def test_takes_parameters_averages_and_tokenizer(
  source_runs, tiny_config, text_folder, tmp_path
):
  source_run = source_runs("lstm")
  changes = {"optim.nt_asgd_every": 2}
  config = text_config(tiny_config, text_folder, "lstm", source_run, **changes)
  experiment, state = begin(config, tmp_path / "run")
  theirs = params_of(source_run)
  check_taken(state, source_run, list(theirs))
  average = named_leaves(averaged_params(state.opt_state))
  for name, value in theirs.items():
    np.testing.assert_array_equal(average[name], value)
  assert experiment.warm_start.report["fraction"] == 1.0
  # Losses of both runs are comparable only with the same tokenizer.
  assert experiment.tokenizer.fingerprint == (
    RunDir(source_run).load_tokenizer().fingerprint
  )


@pytest.mark.parametrize(
  "strategy",
  [
    lambda rules: JitStrategy(jax.devices()[:4], dict(data=-1, fsdp=2), rules),
    lambda rules: PmapStrategy(jax.devices()[:2], dict(data=-1)),
  ],
)
def test_warm_start_on_several_devices(
  strategy, source_runs, tiny_config, text_folder, tmp_path
):
  source_run = source_runs("lstm")
  config = text_config(tiny_config, text_folder, "lstm", source_run)
  strategy = strategy(SHARDING_RULES[config.model.name])
  _, state = begin(config, tmp_path / "run", strategy)
  check_taken(state, source_run, list(params_of(source_run)))


def test_pattern_selects_averaged_parameters(
  source_runs, tiny_config, text_folder, tmp_path
):
  source_run = source_runs("lstm", "averaged", **{"optim.ema_decay": 0.5})
  changes = {"init.parameters": "^layer_0/.*kernel", "optim.ema_decay": 0.9}
  config = text_config(tiny_config, text_folder, "lstm", source_run, **changes)
  experiment, state = begin(config, tmp_path / "run")
  kernels = ["layer_0/input_kernel", "layer_0/recurrent_kernel"]
  check_taken(state, source_run, kernels)  # a Run has averaged parameters
  average = named_leaves(averaged_params(state.opt_state))
  for name, leaf in named_leaves(state.params).items():
    np.testing.assert_array_equal(average[name], leaf, err_msg=name)
  assert "embedding/embedding" in experiment.warm_start.report["left"]


def test_special_tokens_of_new_task_keep_initial_rows(
  source_runs, tiny_config, text_folder, tmp_path
):
  source_run = source_runs("transformer", **{"model.positions": "none"})
  config = text_config(
    tiny_config, text_folder, "encoder", source_run, task="masked_lm"
  )
  config.model.positions, config.model.use_bias = "none", False
  experiment, state = begin(config, tmp_path / "run")
  assert experiment.tokenizer.special_tokens == ("<mask>",)
  theirs = params_of(source_run)["embedding/embedding"]
  ours = state.params["embedding"]["embedding"]
  assert len(ours) == len(theirs) + 1
  np.testing.assert_array_equal(ours[:-1], theirs)
  assert np.abs(ours[-1]).max() > 0


def test_dtypes_are_those_of_the_new_run(
  source_runs, tiny_config, text_folder, tmp_path
):
  source_run = source_runs("lstm")
  changes = {"model.param_dtype": "bfloat16"}
  config = text_config(tiny_config, text_folder, "lstm", source_run, **changes)
  _, state = begin(config, tmp_path / "run")
  found = state.params["layer_0"]["input_kernel"]
  assert found.dtype == jnp.bfloat16
  expected = params_of(source_run)["layer_0/input_kernel"].astype(jnp.bfloat16)
  np.testing.assert_array_equal(found, expected)


def test_resumes_without_source_run(source_runs, rows, tiny_config, tmp_path):
  """Bit for bit as one that was never interrupted."""
  source_run = tmp_path / "source_run"
  shutil.copytree(source_runs("lstm"), source_run)
  config = classifier(tiny_config, rows, source_run)
  config.optim.schedule, config.train.num_steps = "constant", 4
  config.train.checkpoint_every = 4
  assert loop.train(config, tmp_path / "straight") == 0
  config.train.num_steps = 2
  assert loop.train(config, tmp_path / "broken") == 0
  shutil.rmtree(source_run)
  config.train.num_steps = 4
  assert loop.train(config, tmp_path / "broken") == 0
  straight, broken = map(
    params_of, (tmp_path / "straight", tmp_path / "broken")
  )
  for name, value in straight.items():
    np.testing.assert_array_equal(broken[name], value)
  report = json.loads((tmp_path / "broken" / "corpus.json").read_text())["init"]
  run = lmjax.load(tmp_path / "broken")
  state = jax.eval_shape(run.experiment.make_state)
  text = overview(run.experiment, state, 1)
  line = f"started from step 2 of {source_run}: {report['fraction']:.1%}"
  assert line in text
  assert f"taken: {', '.join(report['taken'])}" in text
  assert "new in this run: " in text and "classifier/bias" in report["new"]
  assert "not taken: output/bias, output/table" in text


def test_record_runs_inherit_tokenizers_by_role(
  source_runs, rows, tiny_config, tmp_path
):
  config = classifier(tiny_config, rows, source_runs("lstm"))
  assert loop.train(config, tmp_path / "one") == 0
  config = classifier(tiny_config, rows, tmp_path / "one")
  experiment, state = begin(config, tmp_path / "two")
  assert experiment.warm_start.report["new"] == []
  check_taken(state, tmp_path / "one", list(named_leaves(state.params)))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"init.parameters": "^nothing"},
      "name=lstm has no parameters for .*name=",
    ),
    (
      {"model.cell": "gru"},
      r"layer_0/bias has shape \[64\].* \[48\] in this run",
    ),
    ({"model.width": 24, "model.embedding_width": 16}, "sizes equal"),
    ({"init.checkpoint": "7"}, "checkpoint=7 is not in .* latest or one of 2"),
    ({"init.workdir": "/nowhere"}, "/nowhere holds no run"),
  ],
)
def test_rejects_parameters_that_do_not_fit(
  changes, message, source_runs, rows, tiny_config, tmp_path
):
  config = classifier(tiny_config, rows, source_runs("lstm"), **changes)
  with pytest.raises(UserError, match=message):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run" / "config.json").exists()


def test_rejects_invalid_pattern(tiny_config, text_folder, tmp_path):
  config = tiny_config("lstm", **{"init.parameters": "("})
  with pytest.raises(
    UsageError, match="init.parameters=. is not a valid regular"
  ):
    loop.train(config, tmp_path / "run")


def test_count_based_models_have_no_parameters_to_take(
  source_runs, tiny_config, text_folder, tmp_path
):
  source_run = source_runs("ngram")
  config = text_config(tiny_config, text_folder, "lstm", source_run)
  experiment = Experiment(config, RunDir(tmp_path / "run"))
  with pytest.raises(UserError, match="it has no parameters"):
    _ = experiment.warm_start
  assert SourceRun(str(source_run), "best").learned[1] == {}
