# SPDX-License-Identifier: Apache-2.0
"""The driver: it resumes exactly, keeps what is good and stops in time."""

import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.errors import UsageError, UserError
from lmjax.experiment.checkpoints import Checkpoints
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.generation.sampling_params import SamplingParams
from lmjax.models.neural_cache import CacheOptions
from lmjax.optim.averaging import averaged_params
from lmjax.optim.transforms import plateau_scale
from lmjax.training import loop
from lmjax.training.hooks import is_due
from lmjax.tree import named_leaves


class Stop(Exception):
  pass


class At:
  """A hook that does something at one step."""

  every = 1

  def __init__(self, step, action):
    self.step, self.action = step, action

  def __call__(self, session):
    if session.step == self.step:
      self.action(session)


def crash(session):
  session.checkpoints.wait()
  raise Stop


def records(folder, split="train"):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  timed = {"tokens_per_second", "mfu"}
  return [
    {k: v for k, v in json.loads(line).items() if k not in timed}
    for line in lines
    if json.loads(line)["split"] == split
  ]


def final_state(config, folder):
  """Restore the newest checkpoint on one device."""
  experiment = Experiment(loop.finalize(config), RunDir(folder))
  strategy = loop.make_strategy(config)
  checkpoints = Checkpoints(folder / "checkpoints")
  state, progress = checkpoints.restore(strategy.target(experiment.make_state))
  checkpoints.close()
  return state, progress


def assert_same(a, b):
  a, b = named_leaves(a), named_leaves(b)
  assert a.keys() == b.keys()
  for name, leaf in a.items():
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf, b[name] = map(jax.random.key_data, (leaf, b[name]))
    np.testing.assert_array_equal(leaf, b[name], err_msg=name)


SETTINGS = {
  "lstm bfloat16": (
    "lstm",
    {"model.dtype": "bfloat16", "model.param_dtype": "bfloat16"},
  ),
  "lstm stateful": ("lstm", {"data.order": "stateful", "model.dropout": 0.2}),
  "lstm stateless": ("lstm", {"optim.ema_decay": 0.9}),
  "transformer stateful": (
    "transformer",
    {"data.order": "stateful", "data.reset_at_documents": True},
  ),
  "transformer stateless": (
    "transformer",
    {"optim.schedule": "constant", "optim.plateau_factor": 0.5},
  ),
  "masked words": ("encoder", {"objective.whole_words": True}),
  "skip-gram": ("word_vectors", {}),
  "glove, frozen": (
    "word_vectors",
    {"task": "glove", "optim.freeze": "^output/", "optim.name": "adagrad"},
  ),
}
SLOW = (
  "lstm stateful",
  "transformer stateless",
  "masked words",
  "skip-gram",
)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in SETTINGS
  ],
)
def test_resumed_equals_uninterrupted(name, tiny_config, tmp_path):
  model, changes = SETTINGS[name]
  config = tiny_config(
    model,
    **changes,
    **{
      "train.num_steps": 9,
      "train.log_every": 3,
      "train.eval_every": 4,
      "train.checkpoint_every": 4,
    },
  )
  assert loop.train(config, tmp_path / "straight") == 0
  with pytest.raises(Stop):
    loop.train(config, tmp_path / "broken", [At(7, crash)])
  with open(tmp_path / "broken" / "metrics.jsonl", "a") as file:
    file.write('{"step": 6, "spl')  # half a line, as a power cut leaves it
  assert loop.train(config, tmp_path / "broken") == 0
  straight, expected = final_state(config, tmp_path / "straight")
  resumed, progress = final_state(config, tmp_path / "broken")
  assert_same(straight, resumed)
  for split in ("train", "valid"):
    assert records(tmp_path / "broken", split) == records(
      tmp_path / "straight", split
    )
  assert [r["step"] for r in records(tmp_path / "broken")] == [3, 6, 9]
  assert progress.tokens == expected.tokens
  if config.task == "language_modeling":
    assert progress.tokens == 9 * 8 * 8


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
  """A run of a few steps, to be copied and looked at, never changed."""
  folder = tmp_path_factory.mktemp("trained") / "run"
  config = tiny_config("lstm", **{"data.order": "stateful"})
  assert loop.train(config, folder) == 0
  return config, folder


def copy(trained, tmp_path):
  config, folder = trained
  shutil.copytree(folder, tmp_path / "run")
  return config.copy_and_resolve_references(), tmp_path / "run"


def test_a_run_that_learned_no_blanks_fills_none(trained):
  with pytest.raises(UsageError, match="which cannot fill blanks; give"):
    lmjax.load(trained[1]).fill("a ___")


def test_more_steps_go_on(trained, tmp_path):
  config, folder = copy(trained, tmp_path)
  config.train.num_steps = 6
  assert loop.train(config, folder) == 0
  assert [r["step"] for r in records(folder)] == [2, 4, 6]


def test_a_finished_run_changes_nothing(trained, tmp_path):
  config, folder = copy(trained, tmp_path)
  before = (folder / "metrics.jsonl").read_text()
  assert loop.train(config, folder) == 0
  assert (folder / "metrics.jsonl").read_text() == before


def test_a_checkpoint_that_was_cut_off_is_not_taken(trained, tmp_path):
  config, folder = copy(trained, tmp_path)
  partial = folder / "checkpoints" / "6.orbax-checkpoint-tmp"
  shutil.copytree(folder / "checkpoints" / "4", partial)
  config.train.num_steps = 6
  assert loop.train(config, folder) == 0
  state, _ = final_state(config, folder)
  assert int(state.step) == 6


@pytest.mark.parametrize(
  ("parallel", "devices"), [("jit", 4), ("pmap", 2), ("pmap", 8)]
)
def test_a_run_goes_on_on_other_devices(trained, tmp_path, parallel, devices):
  config, folder = copy(trained, tmp_path)
  config.train.num_steps = 6
  other = config.copy_and_resolve_references()
  other.parallel.strategy, other.parallel.num_devices = parallel, devices
  assert loop.train(other, folder) == 0
  there, _ = final_state(config, folder)
  shutil.copytree(trained[1], tmp_path / "one")
  assert loop.train(config, tmp_path / "one") == 0
  here, _ = final_state(config, tmp_path / "one")
  for a, b in zip(
    jax.tree.leaves((here.params, here.carry)),
    jax.tree.leaves((there.params, there.carry)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_saving_is_not_disturbed_by_the_steps_that_follow(
  tiny_config, tmp_path
):
  """The step writes over its state while the files are still being written."""
  kept = {}

  def keep(session):
    kept["state"] = jax.tree.map(np.array, session.state.params)
    session.save()

  config = tiny_config("lstm", **{"train.checkpoint_every": 0})
  config.model.width = 256
  config.train.num_steps = 6
  config.checkpoint.keep_latest = 9
  loop.train(config, tmp_path / "run", [At(2, keep)])
  run = lmjax.load(tmp_path / "run", checkpoint=2)
  assert_same(kept["state"], run.variables["params"])


def test_the_latest_and_the_best_are_kept(tiny_config, tmp_path):
  config = tiny_config("lstm")
  config.train.num_steps = 12
  config.train.eval_every = config.train.checkpoint_every = 0
  losses = iter([5.0, 3.0, 4.0, 6.0, 7.0, 8.0])

  class Judge:
    every = 2

    def __call__(self, session):
      session.progress.evaluated(session.step, next(losses))
      session.save()

  loop.train(config, tmp_path / "run", [Judge()])
  kept = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()}
  assert kept == {4, 10, 12}
  assert lmjax.load(tmp_path / "run").step == 4
  assert lmjax.load(tmp_path / "run", "latest").step == 12
  with pytest.raises(UserError, match="best, latest or one of 4, 10, 12"):
    lmjax.load(tmp_path / "run", "7")


def test_a_record_is_the_mean_over_its_steps(tiny_config, tmp_path):
  losses = {}
  for log_every in (1, 3):
    config = tiny_config("lstm", **{"train.eval_every": 0})
    config.train.num_steps, config.train.log_every = 6, log_every
    loop.train(config, tmp_path / str(log_every))
    found = records(tmp_path / str(log_every))
    losses[log_every] = [record["loss"] for record in found]
  means = np.mean(np.reshape(losses[1], (2, 3)), axis=1)
  np.testing.assert_allclose(losses[3], means, rtol=1e-6)


def test_early_stopping_stops_and_stays_stopped(tiny_config, tmp_path):
  config = tiny_config("lstm")
  config.train.num_steps, config.train.eval_every = 40, 1
  config.train.early_stopping_patience = 3
  config.optim.learning_rate = 3.0  # it gets worse at once
  config.optim.clip_norm = 0.0
  assert loop.train(config, tmp_path / "run") == 0
  valid = records(tmp_path / "run", "valid")
  assert 4 <= len(valid) < 40
  losses = [record["loss"] for record in valid]
  assert min(losses[-3:]) >= min(losses[:-3])
  assert loop.train(config, tmp_path / "run") == 0
  assert records(tmp_path / "run", "valid") == valid


def test_not_a_number_stops_with_step_batch_and_checkpoint(
  tiny_config, tmp_path
):
  def poison(session):
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, session.state.params)
    session.state = session.state.replace(params=params)

  config = tiny_config("lstm")
  config.train.num_steps, config.train.checkpoint_every = 20, 3
  with pytest.raises(UserError) as caught:
    loop.train(config, tmp_path / "run", [At(7, poison)])
  message = str(caught.value)
  assert "step 8 (batch 7)" in message and "checkpoint 6" in message
  state, _ = final_state(config, tmp_path / "run")
  assert int(state.step) == 6
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_store_a_checkpoint(number, tiny_config, tmp_path):
  config = tiny_config("lstm")
  config.train.num_steps = 50
  previous = signal.getsignal(number)
  kill = At(5, lambda session: os.kill(os.getpid(), number))
  assert loop.train(config, tmp_path / "run", [kill]) == 128 + number
  assert signal.getsignal(number) == previous
  state, _ = final_state(config, tmp_path / "run")
  assert int(state.step) in (5, 6)
  config.train.num_steps = 8
  assert loop.train(config, tmp_path / "run") == 0


def test_it_learns(tiny_config, tmp_path, text_folder):
  """A text of sentences that are nearly alike: far below the unigram."""
  config = tiny_config("lstm", **{"data.order": "stateful"})
  config.data.source, config.data.path = "text", str(text_folder)
  config.data.split_by, config.data.batch_size = "name", 16
  config.data.seq_len = 32
  config.model.width = 64
  config.optim.learning_rate = 2e-2
  config.train.num_steps = config.train.eval_every = 150
  config.train.eval_batches = 0
  config.train.preview_every = 150
  assert loop.train(config, tmp_path / "run") == 0
  first, last = records(tmp_path / "run")[0], records(tmp_path / "run")[-1]
  assert first["loss"] > 2.5 and last["loss"] < 1.0
  assert records(tmp_path / "run", "valid")[-1]["loss"] < 1.0
  sample = records(tmp_path / "run", "preview")[-1]["text"]
  assert "squared" in sample
  run = lmjax.load(tmp_path / "run")
  assert run.generate("3", SamplingParams(num_tokens=30)).text.count("\n") <= 2
  params = SamplingParams(num_samples=3, num_tokens=5)
  assert len(run.generate("3", params).texts) == 3
  logged = records(tmp_path / "run", "valid")[-1]
  for name, value in run.evaluate("valid").items():
    np.testing.assert_allclose(logged[name], value, rtol=1e-5)


def test_a_run_is_judged_with_a_cache(tiny_config, tmp_path, text_folder):
  """Without weight it changes nothing; in a text that repeats it helps."""
  config = tiny_config("transformer", **{"model.positions": "learned"})
  config.data.source, config.data.path = "text", str(text_folder)
  config.data.split_by = "name"
  loop.train(config, tmp_path / "run")

  def loss(**options):
    return lmjax.load(tmp_path / "run", **options).evaluate()["loss"]

  plain = loss()
  weightless = loss(cache=CacheOptions(99, 1.0, 0.0))
  np.testing.assert_allclose(weightless, plain, rtol=1e-2)  # cut elsewhere
  assert loss(cache=CacheOptions(99, 1.0, 0.3)) < 0.95 * plain


def test_the_average_is_what_is_judged_and_loaded(tiny_config, tmp_path):
  config = tiny_config("lstm", **{"optim.ema_decay": 0.5})
  loop.train(config, tmp_path / "run")
  state, _ = final_state(config, tmp_path / "run")
  run = lmjax.load(tmp_path / "run")
  assert_same(run.variables["params"], averaged_params(state.opt_state))
  with pytest.raises(AssertionError):
    assert_same(run.variables["params"], state.params)


def test_the_rate_in_the_records_is_the_one_used(tiny_config, tmp_path):
  config = tiny_config("lstm", **{"optim.plateau_factor": 0.5})
  config.optim.schedule, config.optim.warmup_steps = "constant", 0
  config.optim.plateau_every = config.optim.plateau_patience = 1
  config.optim.learning_rate = 1e-9  # the loss stays as it is
  config.train.num_steps, config.train.log_every = 8, 1
  loop.train(config, tmp_path / "run")
  state, _ = final_state(config, tmp_path / "run")
  last = records(tmp_path / "run")[-1]["learning_rate"]
  assert last == pytest.approx(1e-9 * plateau_scale(state.opt_state))
  assert last < 1e-9


def test_judging_another_text_is_refused(tiny_config, tmp_path):
  (tmp_path / "train.txt").write_text("some text " * 99)
  config = tiny_config("lstm", **{"data.source": "text"})
  config.data.path = str(tmp_path / "train.txt")
  loop.train(config, tmp_path / "run")
  run = lmjax.load(tmp_path / "run")
  assert run.evaluate("test")["loss"] > 0
  (tmp_path / "train.txt").write_text("some text " * 98)
  with pytest.raises(UserError, match="corpus has changed"):
    lmjax.load(tmp_path / "run").evaluate("test")
  # Generation needs no corpus; greedy, it repeats what the text repeats.
  shutil.rmtree(tmp_path / "run" / "cache", ignore_errors=True)
  (tmp_path / "train.txt").unlink()
  params = SamplingParams(num_tokens=3)
  assert lmjax.load(tmp_path / "run").generate("some", params).texts == (
    run.generate("some", params).texts
  )


def test_what_is_due():
  steps = range(1, 11)
  assert [s for s in steps if is_due(4, s, 10)] == [4, 8, 10]
  assert [s for s in steps if is_due(0, s, 10)] == []
