# SPDX-License-Identifier: Apache-2.0
"""A config and its run directory as objects."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from lmjax.config.compatibility import flatten
from lmjax.config.finalize import finalize
from lmjax.data.corpus import Corpus
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError, UserError
from lmjax.experiment.checkpoints import open_checkpoint
from lmjax.experiment.distillation import Teacher, load_scores, save_scores
from lmjax.experiment.pretrained_embeddings import (
  Pretrained,
  check_width,
  put_in,
  read_vectors,
  table_of,
)
from lmjax.experiment.run_dir import RunDir
from lmjax.experiment.warm_start import SourceRun, WarmStart
from lmjax.optim.optimizers import make_optimizer
from lmjax.parallel import Strategy
from lmjax.task_specs import TaskSpec, spec_of, tasks_with
from lmjax.task_specs.build import build_model, open_corpus
from lmjax.tasks.task import Task
from lmjax.train_state import TrainState, create_state
from lmjax.types import PyTree


def open_experiment(
  workdir: str | Path, overrides: Mapping[str, Any]
) -> "Experiment":
  """Open the experiment of a run directory.

  Args:
    workdir: the run directory.
    overrides: config values to replace, by dotted key.

  Raises:
    UserError: if the directory contains no run, or a key does not exist.
  """
  folder = RunDir(workdir)
  config = folder.load_config()
  # All implementations of a model have the same parameters, and the fastest one
  # depends on the device.
  if "implementation" in config.model:
    config.model.implementation = "auto"
  unknown = overrides.keys() - flatten(config).keys()
  if unknown:
    raise UsageError(
      f"a run of task={config.task} has no config key "
      f"{', '.join(sorted(unknown))}."
    )
  config.update_from_flattened_dict(dict(overrides))
  return Experiment(finalize(config), folder)


class Experiment:
  """The objects of a config, each built when it is first used.

  Args:
    config: a finalized config.
    folder: the run directory; the tokenizer of a run that resumes is loaded
      from it, never trained again.
  """

  def __init__(self, config: ConfigDict, folder: RunDir):
    self.config = config
    self.folder = folder

  @property
  def spec(self) -> TaskSpec:
    """Return the definition of the config's task."""
    return spec_of(self.config)

  @property
  def cache_dir(self) -> Path:
    """Return the directory of encoded data."""
    data = self.config.data
    shared = Path(data.cache_dir).expanduser().resolve()
    return shared if data.cache_dir else self.folder.cache

  @functools.cached_property
  def corpus(self) -> Corpus:
    """Open the data."""
    folder, source_run = self.folder, self.source_run
    return open_corpus(
      self.config,
      existing=folder.load_tokenizer() if folder.has_checkpoint() else None,
      inherited=source_run.tokenizer if source_run else None,
      cache_dir=self.cache_dir,
      teacher=self._teacher_scores if self.is_distilled else None,
    )

  @property
  def tokenizer(self) -> Tokenizer | Vocabularies:
    """Return the tokenizer, or the vocabularies of a task on records."""
    return self.corpus.tokenizer

  @property
  def max_length(self) -> int | None:
    """Maximum number of tokens of a text; None if there is no limit."""
    if self.spec.has_records:
      return self.config.data.seq_len
    return self.model.max_context

  def use_int8_cache(self) -> None:
    """Store the keys and values of the model's cache in int8.

    Raises:
      UsageError: if the model has no keys and values.
    """
    if not hasattr(self.model, "int8_cache"):
      raise UsageError(
        f"model.name={self.config.model.name} has no keys and values; omit "
        "int8_cache."
      )
    self.model = self.model.clone(int8_cache=True)

  def check_corpus(self) -> None:
    """Check that the data are still those that the run started with."""
    self.folder.check_corpus(self.corpus.fingerprints)

  def describe_corpus(self) -> dict:
    """Return fingerprints and sizes of the data, for the run directory."""
    description = dict(
      fingerprints=self.corpus.fingerprints,
      **self.corpus.describe(),
      tokenizer=self.tokenizer.fingerprint,
    )
    if self.teacher:
      description["teacher"] = self.teacher.report
    if self.warm_start:
      description["init"] = self.warm_start.report
    if self.pretrained:
      counts_V = self.corpus.counts()
      description["pretrained"] = self.pretrained.coverage(
        counts_V, self.corpus.text_tokenizer.text_ids
      )
    return description

  @functools.cached_property
  def model(self) -> nn.Module:
    """Build the model."""
    return build_model(self.config, **self.corpus.sizes)

  @functools.cached_property
  def task(self) -> Task:
    """Build the task."""
    return self.spec.build(self.config, self.model, self.corpus)

  @functools.cached_property
  def renderer(self) -> Any:
    """Build what turns outputs into JSON; None for tasks on running text."""
    build = self.spec.renderer
    return build(self.config, self.tokenizer) if build else None

  @functools.cached_property
  def optimizer(self) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer."""
    return make_optimizer(self.config.optim, self.config.train.num_steps)

  def make_variables(self, key: jax.Array) -> dict:
    """Initialize the model's variables."""
    return self.task.init(jax.random.fold_in(key, 0), self.corpus.example_batch)

  def make_state(self) -> TrainState:
    """Return the state before the first step; a pure function, for jit."""
    key = jax.random.key(self.config.seed)
    carry = self.task.initial_carry(self.config.data.batch_size)
    return create_state(key, self.make_variables(key), carry, self.optimizer)

  def restore(self, checkpoint: str | int) -> tuple[int, PyTree]:
    """Read the model's variables from a checkpoint of the run directory.

    Args:
      checkpoint: "best" by checkpoint.metric, "latest", or a step.

    Returns:
      The step of the checkpoint, and the variables.

    Raises:
      UserError: if there is no such checkpoint.
    """
    folder = self.folder.checkpoints
    with open_checkpoint(folder, checkpoint) as (checkpoints, step):
      shapes = jax.eval_shape(self.make_state)
      return step, checkpoints.restore_variables(shapes, step)

  @property
  def is_distilled(self) -> bool:
    """Return whether the run learns from the outputs of another run."""
    distill = self.config.distill
    return bool(distill.workdir) and distill.weight > 0

  @functools.cached_property
  def teacher(self) -> Teacher | None:
    """Open the teacher of a new run, if it has one.

    Raises:
      UserError: if the teacher learned another task or other labels.
    """
    if not self.is_distilled or self.folder.has_checkpoint():
      return None
    distill = self.config.distill
    folder = RunDir(distill.workdir)
    other = Experiment(folder.load_config(), folder)
    if not other.spec.distills:
      raise UserError(
        f"distill.workdir={folder.path} is a run of task={other.spec.name}; "
        f"give a run of task={tasks_with('distills')}."
      )
    step, variables = other.restore(distill.checkpoint)
    report = dict(workdir=str(folder.path), step=step)
    teacher = Teacher(other.corpus, other.task, variables, report)
    teacher.check_labels(self.corpus.task_inputs["labels"])
    return teacher

  def _teacher_scores(self) -> np.ndarray:
    """Return the teacher's logits for the training rows, computed once."""
    path = self.folder.teacher
    if self.teacher:
      save_scores(path, self.teacher.scores(self.corpus.kept_rows("train")))
    return load_scores(path)

  @functools.cached_property
  def source_run(self) -> SourceRun | None:
    """Open the run that a new run starts from, if there is one."""
    init = self.config.init
    if not init.workdir or self.folder.has_checkpoint():
      return None
    return SourceRun(init.workdir, init.checkpoint)

  @functools.cached_property
  def warm_start(self) -> WarmStart | None:
    """Select the parameters that are taken from the source run.

    Raises:
      UserError: if none fits.
    """
    if not self.source_run:
      return None
    return self.source_run.offer(
      jax.eval_shape(self.make_state).params,
      self.config.init.parameters,
      self.config.model.name,
      self.corpus.text_tokenizer,
    )

  @functools.cached_property
  def pretrained(self) -> Pretrained | None:
    """Read the word vectors that the embedding of a new run starts with.

    Raises:
      UserError: if the vectors do not fit the model.
    """
    wanted = self.config.pretrained
    path, format = wanted.vectors, wanted.format
    if not path or self.folder.has_checkpoint():
      return None
    params = jax.eval_shape(self.make_state).params
    table = table_of(params, self.config.model.name)
    pretrained = read_vectors(path, format, self.corpus.text_tokenizer)
    check_width(pretrained, table, path)
    return pretrained

  def start(self, strategy: Strategy) -> TrainState:
    """Return the state before the first step, on the devices of a strategy.

    Counts of the training text and parameters from elsewhere are written from
    the host: as constants of the compiled initialization they would exist
    twice, and compiling them would take minutes.
    """
    state = strategy.create(self.make_state)
    counted = self.corpus.estimate(self.model)
    if not (counted or self.warm_start or self.pretrained):
      return state
    state = strategy.gather(state)
    state = state.replace(collections={**state.collections, **counted})
    if self.warm_start:
      state = self.warm_start.put_in(state)
    if self.pretrained:
      state = put_in(state, self.pretrained)
    return strategy.device_put(state)
