# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects that it names."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from lmjax.data.corpus import Corpus
from lmjax.data.records.record_corpus import RecordCorpus
from lmjax.data.records.schemas import SCHEMAS
from lmjax.data.text.text_corpus import TextCorpus
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UserError
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
from lmjax.models import build_model
from lmjax.optim.optimizers import make_optimizer
from lmjax.parallel import Strategy
from lmjax.prediction import PREDICTIONS
from lmjax.prediction.renderer import Prediction
from lmjax.tasks import TASKS, sections_of
from lmjax.tasks.task import Task
from lmjax.train_state import TrainState, create_state
from lmjax.types import PyTree


class Experiment:
  """A config and its run folder, as objects, each built when it is asked for.

  Args:
    config: a finalized config.
    folder: the run folder; a tokenizer in it is loaded, never built again.
  """

  def __init__(self, config: ConfigDict, folder: RunDir):
    self.config = config
    self.folder = folder

  @property
  def cache_dir(self) -> Path:
    """Return the folder of encoded corpora."""
    data = self.config.data
    chosen = Path(data.cache_dir).expanduser().resolve()
    return chosen if data.cache_dir else self.folder.cache

  @functools.cached_property
  def corpus(self) -> Corpus:
    """Open what is learned from."""
    folder, config = self.folder, self.config
    known = folder.load_tokenizer() if folder.has_checkpoint() else None
    given = self.source_run.tokenizer if self.source_run else None
    if config.task in SCHEMAS:
      teacher = self._teacher_scores if self.is_distilled else None
      return RecordCorpus(config, known, given, self.cache_dir, teacher)
    return TextCorpus(config, known, given, self.cache_dir)

  @property
  def tokenizer(self) -> Tokenizer | Vocabularies:
    """Return what the run's texts are written in."""
    return self.corpus.tokenizer

  def check_corpus(self) -> None:
    """See that the data are still what the run began with."""
    self.folder.check_corpus(self.corpus.fingerprints)

  def describe_corpus(self) -> dict:
    """Describe the data, by digests and sizes, for the run folder."""
    description = dict(
      fingerprints=self.corpus.fingerprints,
      **self.corpus.describe(),
      tokenizer=self.tokenizer.fingerprint,
    )
    if self.teacher:
      description["teacher"] = self.teacher.report
    if self.taken:
      description["init"] = self.taken.report
    if self.pretrained:
      counts_V = self.corpus.counts()
      description["pretrained"] = self.pretrained.coverage(counts_V)
    return description

  @functools.cached_property
  def model(self) -> nn.Module:
    """Build the model."""
    return build_model(self.config, **self.corpus.sizes)

  @functools.cached_property
  def task(self) -> Task:
    """Build the task."""
    return self._fill(TASKS[self.config.task], model=self.model)

  @functools.cached_property
  def prediction(self) -> Prediction:
    """Build what turns the task's outputs into something to read."""
    kind = PREDICTIONS[self.config.task]
    return self._fill(kind, vocabularies=self.tokenizer)

  def _fill(self, kind: type, **offered: Any) -> Any:
    """Make a dataclass of what its fields ask for."""
    offered |= self.corpus.task_inputs
    sections = [self.config[name] for name in sections_of(self.config.task)]

    def find(name: str) -> Any:
      if name in offered:
        return offered[name]
      return next(section[name] for section in sections if name in section)

    wanted = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: find(name) for name in wanted})

  @functools.cached_property
  def optimizer(self) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer."""
    return make_optimizer(self.config.optim, self.config.train.num_steps)

  def make_variables(self, key: jax.Array) -> dict:
    """Initialise the model's variables."""
    return self.task.init(jax.random.fold_in(key, 0), self.corpus.example_batch)

  def make_state(self) -> TrainState:
    """Make the state before the first step; pure, so that it can be jitted."""
    key = jax.random.key(self.config.seed)
    carry = self.task.initial_carry(self.config.data.batch_size)
    return create_state(key, self.make_variables(key), carry, self.optimizer)

  def restore(self, checkpoint: str | int) -> tuple[int, PyTree]:
    """Read the model's variables from a checkpoint of the run folder.

    Args:
      checkpoint: "best" by validation loss, "latest", or a step.

    Returns:
      The step that they are of, and the variables.

    Raises:
      UserError: if there is no such checkpoint.
    """
    folder = self.folder.checkpoints
    with open_checkpoint(folder, checkpoint) as (checkpoints, step):
      shapes = jax.eval_shape(self.make_state)
      return step, checkpoints.restore_variables(shapes, step)

  @property
  def is_distilled(self) -> bool:
    """Say whether it learns from what another run says."""
    distill = self.config.distill
    return bool(distill.workdir) and distill.weight > 0

  @functools.cached_property
  def teacher(self) -> Teacher | None:
    """Open the run that a new one learns from, if it does.

    Raises:
      UserError: if that has learned something else.
    """
    if not self.is_distilled or self.folder.has_checkpoint():
      return None
    distill = self.config.distill
    folder = RunDir(distill.workdir)
    config = folder.load_config()
    if config.task != "classification":
      raise UserError(
        f"distill.workdir={folder.path} learned task={config.task}; give a run "
        "of task=classification."
      )
    other = Experiment(config, folder)
    step, variables = other.restore(distill.checkpoint)
    report = dict(workdir=str(folder.path), step=step)
    teacher = Teacher(other.corpus, other.task, variables, report)
    teacher.check_labels(self.corpus.task_inputs["labels"])
    return teacher

  def _teacher_scores(self) -> np.ndarray:
    """Let it score the rows that are learned from, once for all starts."""
    path = self.folder.teacher
    if self.teacher:
      save_scores(path, self.teacher.scores(self.corpus.kept_rows("train")))
    return load_scores(path)

  @functools.cached_property
  def source_run(self) -> SourceRun | None:
    """Open the run that a new one begins with, if it does."""
    init = self.config.init
    if not init.workdir or self.folder.has_checkpoint():
      return None
    return SourceRun(init.workdir, init.checkpoint)

  @functools.cached_property
  def taken(self) -> WarmStart | None:
    """Choose the parameters that are taken of that run.

    Raises:
      UserError: if none fit.
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
    """Read the vectors that a new run's embedding begins with.

    Raises:
      UserError: if there are vectors that cannot be put in.
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

  def begin(self, strategy: Strategy) -> TrainState:
    """Make the state before the first step, where it is to live.

    What models count in the text, and what they begin with, is put in from the
    host: as constants of a compiled program it would be there twice and compile
    for minutes.
    """
    state = strategy.create(self.make_state)
    counted = self.corpus.estimate(self.model)
    if not (counted or self.taken or self.pretrained):
      return state
    state = strategy.collect(state)
    state = state.replace(collections={**state.collections, **counted})
    if self.taken:
      state = self.taken.put_in(state)
    if self.pretrained:
      state = put_in(state, self.pretrained)
    return strategy.place(state)
