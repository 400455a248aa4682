# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects that it names."""

import dataclasses
import functools
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from lmjax.data.batching import EVAL_ORDERS, TRAIN_ORDERS, Rows
from lmjax.data.datasets import DATASETS
from lmjax.data.examples import EXAMPLES
from lmjax.data.loader import Batches
from lmjax.data.objectives import make_objective
from lmjax.data.objectives.objective import Objective
from lmjax.data.sources import Source
from lmjax.data.stream import TokenStream, open_stream
from lmjax.data.tokenizers import TOKENIZERS, Tokenizer
from lmjax.embedding import (
  Pretrained,
  check_width,
  put_in,
  read_vectors,
  table_of,
)
from lmjax.errors import UserError
from lmjax.models import MODELS
from lmjax.optim import make_optimizer
from lmjax.parallel import Strategy
from lmjax.run_folder import RunFolder
from lmjax.state import TrainState, create_state
from lmjax.tasks import TASKS
from lmjax.tasks.task import Task


class Experiment:
  """A config and its run folder, as objects, each built when it is asked for.

  Args:
    config: a finalized config.
    folder: the run folder; a tokenizer in it is loaded, never built again.
  """

  def __init__(self, config: ConfigDict, folder: RunFolder):
    self.config = config
    self.folder = folder

  @property
  def cache_dir(self) -> Path:
    """Return the folder of encoded corpora."""
    data = self.config.data
    chosen = Path(data.cache_dir).expanduser().resolve()
    return chosen if data.cache_dir else self.folder.cache

  @functools.cached_property
  def sources(self) -> dict[str, Source]:
    """Open the corpus: split to documents."""
    data = self.config.data
    return DATASETS[data.source](data, self.cache_dir)

  @functools.cached_property
  def objective(self) -> Objective:
    """Make what rewrites the text for the task."""
    return make_objective(self.config)

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """Load the run's tokenizer, or train one on the split train."""
    if self.folder.has_begun():
      return self.folder.load_tokenizer()
    data = self.config.data
    train = self.sources["train"]
    tokenizer = TOKENIZERS[data.tokenizer].train(
      (train[index] for index in range(len(train))),
      data.vocab_size,
      data.min_freq,
      data.lower_case,
    )
    return tokenizer.with_extras(self.objective.extras)

  def stream(self, split: str) -> TokenStream:
    """Open the tokens of a split.

    Raises:
      UserError: if the split is not there, empty, or shorter than a window.
    """
    data = self.config.data
    corpus = f"data.source={data.source} {data.path or data.name}".strip()
    if split in self.sources:
      stream = open_stream(
        self.sources[split], self.tokenizer, self.cache_dir, data.append_eos
      )
    if split not in self.sources or not stream.num_tokens:
      raise UserError(
        f"{corpus} is empty; there is nothing to train on."
        if split == "train"
        else f"{corpus} has no text in split {split}; give it a share by "
        f"data.{split}_fraction or data.{split}_files."
      )
    needed = self.objective.window + 1 if split == "train" else 2
    if stream.num_tokens < needed:
      raise UserError(
        f"split {split} of {corpus} has {stream.num_tokens} tokens and needs "
        f"at least {needed}; give more text or a smaller data.window="
        f"{data.window}."
      )
    return stream

  def rows(self, order: type[Rows], split: str) -> Rows:
    """Cut a split into this process's rows of batches."""
    data = self.config.data
    return order(
      self.stream(split),
      self.objective.window,
      data.batch_size,
      seed=self.config.seed,
      reset_at_documents=data.reset_at_documents,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def examples(self, orders: dict[str, type[Rows]], split: str) -> Batches:
    """Make of a split's rows what the task learns from."""
    config = self.config
    return EXAMPLES[config.task](
      config,
      self.rows(orders[config.data.order], split),
      functools.partial(self.stream, "train"),
      self.tokenizer,
      self.cache_dir,
    )

  def train_batches(self) -> Batches:
    """Return the batches to train on, by number."""
    return self.examples(TRAIN_ORDERS, "train")

  def eval_batches(self, split: str) -> Batches:
    """Return the batches that cover a split once."""
    return self.examples(EVAL_ORDERS, split)

  @property
  def fingerprints(self) -> dict[str, str]:
    """Name the text of each split by its digest."""
    return {k: v.fingerprint for k, v in sorted(self.sources.items())}

  def check_corpus(self) -> None:
    """See that the text is still what the run began with."""
    self.folder.check_corpus(self.fingerprints)

  def describe_corpus(self) -> dict:
    """Name the text of each split by digest and size."""
    train = self.stream("train")
    description = dict(
      fingerprints=self.fingerprints,
      train_tokens=train.num_tokens,
      train_documents=train.num_documents,
      tokenizer=self.tokenizer.fingerprint,
    )
    if self.pretrained:
      counts_V = train.counts(self.tokenizer.vocab_size)
      description["pretrained"] = self.pretrained.coverage(counts_V)
    return description

  @functools.cached_property
  def model(self) -> nn.Module:
    """Build the model."""
    build = MODELS[self.config.model.name]
    return build(self.config, vocab_size=self.tokenizer.vocab_size)

  @functools.cached_property
  def task(self) -> Task:
    """Build the task, from what its fields ask for."""
    config, task = self.config, TASKS[self.config.task]
    offered = dict(
      model=self.model,
      units_V=self.tokenizer.units(),
      unit=self.tokenizer.unit,
      stateful=config.data.order == "stateful",
      label_smoothing=config.loss.label_smoothing,
      z_loss=config.loss.z_loss,
      num_negatives=config.word_vectors.num_negatives,
      x_max=config.word_vectors.x_max,
      weight_exponent=config.word_vectors.weight_exponent,
    )
    wanted = [field.name for field in dataclasses.fields(task)]
    return task(**{name: offered[name] for name in wanted})

  @functools.cached_property
  def optimizer(self) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer."""
    return make_optimizer(self.config.optim, self.config.train.num_steps)

  def make_variables(self, key: jax.Array) -> dict:
    """Initialise the model's variables."""
    data = self.config.data
    shape = (data.batch_size, data.window)
    tokens = np.zeros(shape, np.int32)
    return self.task.init(jax.random.fold_in(key, 0), {"inputs": tokens})

  def make_state(self) -> TrainState:
    """Make the state before the first step; pure, so that it can be jitted."""
    key = jax.random.key(self.config.seed)
    carry = self.task.initial_carry(self.config.data.batch_size)
    return create_state(key, self.make_variables(key), carry, self.optimizer)

  @functools.cached_property
  def pretrained(self) -> Pretrained | None:
    """Read the vectors that a new run's embedding begins with.

    Raises:
      UserError: if there are vectors that cannot be put in.
    """
    wanted = self.config.pretrained
    path, format = wanted.vectors, wanted.format
    if not path or self.folder.has_begun():
      return None
    params = jax.eval_shape(self.make_state).params
    table = table_of(params, self.config.model.name)
    pretrained = read_vectors(path, format, self.tokenizer)
    check_width(pretrained, table, path)
    return pretrained

  def begin(self, strategy: Strategy) -> TrainState:
    """Make the state before the first step, where it is to live.

    What models count in the text, and what they begin with, is put in from the
    host: as constants of a compiled program it would be there twice and compile
    for minutes.
    """
    state, stream = strategy.create(self.make_state), self.stream("train")
    counted = self.model.estimate(
      stream.tokens, stream.starts, self.tokenizer.names()
    )
    if not counted and not self.pretrained:
      return state
    state = strategy.collect(state)
    state = state.replace(collections={**state.collections, **counted})
    if self.pretrained:
      state = put_in(state, self.pretrained)
    return strategy.place(state)
