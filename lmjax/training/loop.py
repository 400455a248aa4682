# SPDX-License-Identifier: Apache-2.0
"""The driver: from a config and a folder to a trained run."""

import contextlib
import functools
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from lmjax.config.finalize import finalize
from lmjax.data.loader import load
from lmjax.errors import UserError
from lmjax.experiment.checkpoints import Checkpoints
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.progress import Progress
from lmjax.experiment.run_dir import RunDir
from lmjax.metrics.sums import Sums
from lmjax.models.sharding_rules import SHARDING_RULES
from lmjax.optim.schedules import make_schedule
from lmjax.parallel import STRATEGIES, Strategy
from lmjax.train_state import TrainState
from lmjax.training.hooks import Checkpoint, Evaluate, Hook, Preview, is_due
from lmjax.training.monitor import Monitor
from lmjax.training.overview import overview
from lmjax.training.session import Session
from lmjax.training.signals import stop_on_signals
from lmjax.training.step import train_step
from lmjax.training.throughput import Throughput
from lmjax.training.writers import MetricWriter, show
from lmjax.types import Batch


def train(
  config: ConfigDict, workdir: str, extra_hooks: Sequence[Hook] = ()
) -> int:
  """Train from the newest checkpoint of a run directory, or from the start.

  Args:
    config: the experiment; see lmjax.config.defaults.
    workdir: the run directory. The same call with the same directory resumes
      the run.
    extra_hooks: called after the other hooks.

  Returns:
    The exit code: 0, or 128 + the number of the signal that stopped it.

  Raises:
    UserError: for what the user can correct, before anything is compiled.
  """
  config = finalize(config)
  folder = RunDir(workdir)
  strategy = make_strategy(config)
  with folder.lock(), contextlib.ExitStack() as stack:
    folder.check(config)
    experiment = Experiment(config, folder)
    experiment.check_corpus()
    corpus = experiment.describe_corpus()
    hooks = [*make_hooks(experiment, strategy), *extra_hooks]
    folder.write(config, experiment.tokenizer, corpus)
    session = open_session(experiment, strategy, stack)
    show(overview(experiment, session.state, strategy.num_devices))
    return run(session, hooks, stack)


def run(
  session: Session, hooks: Sequence[Hook], stack: contextlib.ExitStack
) -> int:
  """Take steps until the last one, a stop request or a hook's word."""
  experiment, strategy = session.experiment, session.strategy
  last_step = experiment.config.train.num_steps
  step = compile_train_step(experiment, strategy, session.state)
  monitor = make_monitor(session)
  stack.callback(monitor.close)
  log_every = experiment.config.train.log_every
  stop = stack.enter_context(stop_on_signals(log_every))
  batches = load(
    experiment.corpus.train_batches(),
    session.step,
    last_step,
    experiment.config.data.num_threads,
  )
  for batch in batches:
    if session.finished or stop.is_requested(session.step, monitor.flush):
      break
    batch = strategy.shard_batch(batch)
    session.state, sums = step(session.state, batch)
    session.step += 1
    monitor.push(session.step, sums)
    for hook in hooks:
      if is_due(hook.every, session.step, last_step):
        monitor.flush()
        with monitor.paused():
          hook(session)
  monitor.flush()
  session.save()
  show(f"stopped at step {session.step} of {last_step}")
  return stop.exit_code


def compile_train_step(
  experiment: Experiment, strategy: Strategy, state: TrainState
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
  """Compile the step of an experiment for states like `state`."""
  step = functools.partial(
    train_step,
    task=experiment.task,
    optimizer=experiment.optimizer,
    num_microbatches=experiment.config.train.num_microbatches,
  )
  return strategy.compile_step(step, state)


def make_strategy(config: ConfigDict) -> Strategy:
  """Choose the devices and how the step runs on them.

  Raises:
    UserError: if the batch does not divide by them.
  """
  parallel, data = config.parallel, config.data
  devices = jax.devices()
  if parallel.num_devices > len(devices):
    raise UserError(
      f"parallel.num_devices={parallel.num_devices} is more than the "
      f"{len(devices)} that are here."
    )
  devices = devices[: parallel.num_devices or None]
  rows = data.batch_size // config.train.num_microbatches
  if rows % len(devices):
    raise UserError(
      f"data.batch_size={data.batch_size} in train.num_microbatches="
      f"{config.train.num_microbatches} parts must divide by the "
      f"{len(devices)} devices."
    )
  strategy = STRATEGIES[parallel.strategy]
  rules = (*parallel.rules, *SHARDING_RULES[config.model.name])
  return strategy(devices, parallel.mesh, rules)


def make_hooks(experiment: Experiment, strategy: Strategy) -> list[Hook]:
  """Make the usual hooks, in the order in which they are called."""
  return [
    Evaluate(experiment, strategy),
    Checkpoint(experiment.config.train.checkpoint_every),
    Preview(experiment),
  ]


def open_session(
  experiment: Experiment, strategy: Strategy, stack: contextlib.ExitStack
) -> Session:
  """Restore the newest checkpoint, or make a state to start from."""
  config, folder = experiment.config, experiment.folder
  checkpoints = Checkpoints(
    folder.checkpoints,
    config.checkpoint.keep_latest,
    config.checkpoint.keep_best,
  )
  stack.callback(checkpoints.close)
  if checkpoints.latest() is None:
    state, progress = experiment.start(strategy), Progress()
  else:
    target = strategy.target(experiment.make_state)
    state, progress = checkpoints.restore(target)
    state = strategy.device_put(state)
  step = int(state.step)
  writer = MetricWriter(folder.metrics, folder.events, step)
  stack.callback(writer.close)
  return Session(
    experiment,
    strategy,
    state,
    step,
    progress,
    checkpoints,
    writer,
    finished=progress.exhausted(config.train.early_stopping_patience),
  )


def make_monitor(session: Session) -> Monitor:
  """Make what reads the sums of each step."""
  experiment = session.experiment
  config = experiment.config
  return Monitor(
    experiment,
    session,
    Throughput(
      experiment.model, config.data.seq_len, session.strategy.num_devices
    ),
    make_schedule(config.optim, config.train.num_steps),
  )
