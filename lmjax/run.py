# SPDX-License-Identifier: Apache-2.0
"""A trained run, opened from its folder alone."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lmjax.config.compatibility import flatten
from lmjax.config.finalize import finalize
from lmjax.data.records.record_corpus import Report
from lmjax.data.records.schemas.schema import Row
from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.text.batching import EVAL_ORDERS, Rows
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.data.word_vectors import WordVectors
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.pretrained_embeddings import learned_vectors, table_of
from lmjax.experiment.run_dir import RunDir
from lmjax.generation.decoding_strategy import AuxiliaryModel, Search
from lmjax.generation.generator import GenerationStats, check_minimum
from lmjax.generation.infilling import Filled
from lmjax.generation.samplers import make_sampler
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import Continuation, Control, TextSampler
from lmjax.interpretability.explainers import Explanation
from lmjax.models.neural_cache import CacheOptions
from lmjax.ops.int8 import dense_weights, quantize_weights
from lmjax.parallel.jit import JitStrategy
from lmjax.prediction.predictor import Predictor
from lmjax.prediction.retriever import Retriever
from lmjax.scoring.conditional import PairScorer
from lmjax.scoring.language_model import Score, TextScorer
from lmjax.task_specs import check_searchable, spec_of, tasks_with
from lmjax.tasks.task import Task
from lmjax.train_state import TrainState
from lmjax.training.evaluation import Evaluator
from lmjax.types import Batch, PyTree


class Run:
  """What a run directory holds, ready to use.

  Attributes:
    experiment: the objects of its config.
    step: the step that the parameters are of.
    variables: the model's variables.
    timing: how long it took to continue the last texts.

  Args:
    workdir: the run directory.
    checkpoint: "best", as checkpoint.metric says, "latest", or a step.
    overrides: parts of the config to look at differently, by dotted key.
    cache: a neural cache to give the model; None for none.
    int8_weights: whether parameters are rounded to eight bits, in which they
      lie while texts are drawn.
    int8_cache: whether a Transformer's keys and values are kept in eight bits.
    control: constraints and guidance; see lmjax.guidance.options.
    search: how texts are searched for; None where they are drawn.

  Raises:
    UserError: if the folder holds no run, or no such checkpoint.
  """

  def __init__(
    self,
    workdir: str | Path,
    checkpoint: str | int = "best",
    overrides: dict | None = None,
    cache: CacheOptions | None = None,
    int8_weights: bool = False,
    int8_cache: bool = False,
    control: Control | None = None,
    search: Search | None = None,
  ):
    self._cache, self._search = cache, search
    self._int8_weights, self._control = int8_weights, control
    self.timing = GenerationStats()
    folder = RunDir(workdir)
    config = folder.load_config()
    if cache and not spec_of(config).is_stateful:
      raise UsageError(
        f"a neural cache needs task={tasks_with('is_stateful')}, not "
        f"{config.task}."
      )
    if "implementation" in config.model:  # any has the same parameters
      config.model.implementation = "auto"
    strangers = (overrides or {}).keys() - flatten(config).keys()
    if strangers:
      raise UsageError(
        f"a run of task={config.task} has no {', '.join(sorted(strangers))}."
      )
    config.update_from_flattened_dict(overrides or {})
    self.experiment = Experiment(finalize(config), folder)
    if int8_cache:
      self.experiment.model = _with_int8_cache(self.experiment.model)
    self.step, self.variables = self.experiment.restore(checkpoint)
    if int8_weights:
      self.variables = dense_weights(quantize_weights(self.variables))

  @property
  def tokenizer(self) -> Tokenizer | Vocabularies:
    """Return what the run's texts are written in."""
    return self.experiment.tokenizer

  @functools.cached_property
  def vectors(self) -> WordVectors:
    """Return the names of tokens, and what the run knows of each as a vector.

    Raises:
      UserError: if its model has no vector a token.
    """
    experiment = self.experiment
    return learned_vectors(
      self.variables["params"],
      experiment.config,
      experiment.corpus.text_tokenizer,
    )

  def helper(self, name: str) -> AuxiliaryModel:
    """Return the run as one that helps another to find texts.

    Args:
      name: what messages call it.

    Raises:
      UsageError: if the run's task is not to predict the next token.
    """
    spec = self.experiment.spec
    if not spec.is_auxiliary:
      raise UsageError(
        f"{name} is a run of task={spec.name}, which cannot assist another "
        f"run; give a run of task={tasks_with('is_auxiliary')}."
      )
    return AuxiliaryModel(
      name, self.experiment.model, self.variables, self.tokenizer
    )

  @functools.cached_property
  def sampler(self) -> TextSampler:
    """Make what draws texts.

    Raises:
      UsageError: if the run's task draws none.
    """
    spec = self.experiment.spec
    if not spec.sampler:
      tool = "predict.py" if spec.has_records else "embed.py"
      tool = "fill.py" if spec.infiller else tool
      raise UsageError(
        f"a run of task={spec.name} does not generate text; use scripts/{tool}."
      )
    model = self.experiment.model
    if self._cache:
      model = self._cache.around(model)
    config = self.experiment.config
    return make_sampler(
      config,
      model,
      self.tokenizer,
      keeps_layout=True,
      int8_weights=self._int8_weights,
      control=self._control,
      search=self._search,
    )

  def generate(
    self, prompt: str = "\n", num_samples: int | None = None, **settings
  ) -> str | list[str]:
    """Continue a prompt, or write for a source; see TextSampler for settings.

    Returns:
      A text, or a list of them if `num_samples` is given.
    """
    number = 1 if num_samples is None else num_samples
    texts = self.sampler(self.variables, prompt, num_samples=number, **settings)
    return texts[0] if num_samples is None else texts

  def continue_texts(
    self, prompts: Sequence[str], sampling: SamplingParams, **settings: Any
  ) -> list[Continuation]:
    """Continue prompts, or write for sources; see `continue_each`."""
    return list(self.continue_each(prompts, sampling, **settings))

  def continue_each(
    self,
    prompts: Sequence[str],
    sampling: SamplingParams,
    num_tokens: int = 200,
    num_samples: int = 1,
    seed: int = 0,
    stop_strings: Sequence[str] = (),
    max_seconds: float | None = None,
    control_code: str = "",
    batch_size: int = 64,
  ) -> Iterator[Continuation]:
    """Continue prompts, or write for sources, some at a time.

    Args:
      prompts: of any lengths.
      sampling: what tokens are chosen by.
      num_tokens: how many tokens to draw at most; `<eos>` ends a text.
      num_samples: how many texts for each prompt.
      seed: the same seed draws the same texts.
      stop_strings: strings before which a text ends.
      max_seconds: after which no more is drawn in a batch; None for no limit.
      control_code: control code that texts stand under; empty for none.
      batch_size: texts that are drawn together, those of a beam or to choose
        among counted; none depends on it.

    Returns:
      All texts of the first prompt, then of the next, as they are made. What
      all of them took so far is in `timing`.

    Raises:
      UsageError: if a number is out of range, or a prompt is longer than the
        model's context.
    """
    check_minimum(batch_size=batch_size)
    sampler, self.timing = self.sampler, GenerationStats()
    filters = sampling.filters(sampler.tokenizer)
    requests = sampler.requests(
      prompts, num_tokens, num_samples, seed, control_code
    )
    # Samples of a prompt stay together, if that may be: a beam finds them all.
    most = max(batch_size // (self._search or Search()).num_rows, 1)
    size = most - most % num_samples or most
    for start in range(0, len(requests), size):
      group = requests[start : start + size]
      texts = sampler.draw(
        self.variables, group, filters, stop_strings, max_seconds
      )
      self.timing = self.timing.plus(sampler.timing)
      yield from texts

  def stream_text(
    self,
    prompt: str,
    sampling: SamplingParams,
    num_tokens: int = 200,
    seed: int = 0,
    stop_strings: Sequence[str] = (),
    max_seconds: float | None = None,
    control_code: str = "",
    chunk: int = 4,
  ) -> Iterator[str]:
    """Continue a prompt piece by piece: no half characters; `continue_each`.

    Args:
      prompt: the prompt, or the source.
      sampling: what tokens are chosen by.
      num_tokens: how many tokens to draw at most.
      seed: the same seed draws the same text.
      stop_strings: strings before which the text ends.
      max_seconds: after which no more is drawn; None for no limit.
      control_code: control code that the text stands under; empty for none.
      chunk: how many tokens are drawn at a time.
    """
    sampler = self.sampler
    filters = sampling.filters(sampler.tokenizer)
    requests = sampler.requests(
      [prompt], num_tokens, seed=seed, control_code=control_code
    )
    for (new,) in sampler.stream(
      self.variables, requests, filters, stop_strings, max_seconds, chunk
    ):
      self.timing = sampler.timing
      yield new

  @functools.cached_property
  def scorer(self) -> TextScorer | PairScorer:
    """Make what scores texts, with memory as evaluation keeps it.

    Raises:
      UsageError: if the run's task is not to predict the next token.
    """
    experiment, spec = self.experiment, self.experiment.spec
    if not spec.scorer:
      raise UsageError(
        f"{experiment.folder.path} is a run of task={spec.name}, which scores "
        f"no text; give a run of task={tasks_with('scorer')}."
      )
    return spec.scorer()(
      experiment.config,
      experiment.task,
      experiment.model,
      self.tokenizer,
      self._cache,
    )

  def score(
    self, texts: Sequence[str], control_code: str = "", prompt: str = ""
  ) -> list[Score]:
    """Score each token of texts given those before it.

    Args:
      texts: any number of them.
      control_code: control code that they stand under; empty for none.
      prompt: what stands before each, or the source that they are written for.

    Raises:
      UsageError: see TextScorer and PairScorer.
    """
    return self.scorer(self.variables, texts, control_code, prompt)

  def fill(self, text: str, **settings) -> Filled:
    """Fill the blanks `___` of a text; see lmjax.generation.infilling.

    Raises:
      UsageError: if the run's task fills no blanks.
    """
    spec = self.experiment.spec
    if not spec.infiller:
      raise UsageError(
        f"a run of task={spec.name} cannot fill blanks; train one with "
        f"task={tasks_with('infiller')}."
      )
    infiller = spec.infiller()(self.experiment.model, self.tokenizer)
    return infiller(self.variables, text, **settings)

  def explain(
    self, text: str, target: str = "", num_points: int = 64
  ) -> Explanation:
    """Say which tokens of a text move the run to what it says of it.

    Args:
      text: any.
      target: the label, or the next token, to explain; empty for the most
        likely one.
      num_points: see lmjax.interpretability.attribution.integrated_gradients.

    Raises:
      UsageError: if nothing explains what the run's model says.
    """
    config = self.experiment.config
    spec = self.experiment.spec
    if not spec.explainer:
      raise UsageError(
        f"predictions of task={spec.name} cannot be explained; give a run of "
        f"task={tasks_with('explainer')}."
      )
    table_of(self.variables.get("params", {}), config.model.name)
    task = self.experiment.task
    return spec.explainer()(
      task,
      self.variables,
      self.tokenizer,
      text,
      target,
      num_points,
      longest=(
        config.data.seq_len if spec.has_records else task.model.max_context
      ),
    )

  def evaluate(self, split: str = "valid") -> dict[str, float]:
    """Judge the parameters on a whole split, "train", "valid" or "test".

    A neural cache goes on from window to window whatever `data.order` says of
    the model's own memory.
    """
    self.experiment.check_corpus()
    task, batches = self._task(split)
    collections = dict(self.variables)
    state = TrainState(
      step=self.step,
      params=collections.pop("params"),
      opt_state=(),
      collections=collections,
      carry=None,
      key=jax.random.key(0),
    )
    strategy = JitStrategy(jax.devices()[:1], dict(data=1))
    report = Evaluator(task, strategy, batches)(state)
    if self.experiment.spec.has_records:
      rows = self.experiment.corpus.kept_rows(split)
      predictor = self._predictor()
      report |= predictor.evaluate(predictor(self.variables, rows))
    return report

  def _predictor(self, batch_size: int = 0) -> Predictor:
    experiment = self.experiment
    return Predictor(
      experiment.task,
      experiment.corpus,
      experiment.renderer,
      batch_size or experiment.config.data.batch_size,
    )

  def predict(
    self, rows: Iterable[Row], batch_size: int = 0
  ) -> Iterator[dict[str, Any]]:
    """Say what is predicted of rows, in their order, as JSON has it.

    Args:
      rows: texts by role, as `config.data.columns` names the roles.
      batch_size: rows that are read before any is answered; 0 for as many as in
        a batch of training.

    Raises:
      UsageError: if the run's task learns from no records.
      UserError: naming a row that is malformed, counted from 1.
    """
    columns = self.input_columns
    records = (
      Record(f"row {number}", {columns[k]: row[k] for k in row if k in columns})
      for number, row in enumerate(rows, 1)
    )
    for _, prediction in self.predict_records(records, _refuse, batch_size):
      yield prediction

  def predict_records(
    self,
    records: Iterable[Record | Problem],
    report: Report,
    batch_size: int = 0,
  ) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Say what is predicted of records, as JSON has it, after what was read.

    Args:
      records: in columns, as `config.data.columns` names them.
      report: what is told of malformed records, which are left out.
      batch_size: see `predict`.

    Raises:
      UsageError: if the run's task learns from no records.
    """
    corpus = self.experiment.corpus
    rows = corpus.select(records, tuple(self.input_columns), report)
    predictor = self._predictor(batch_size)
    return predictor(self.variables, rows, report)

  @property
  def input_columns(self) -> dict[str, str]:
    """Name the columns that the model sees, by role.

    Raises:
      UsageError: if the run's task learns from no records.
    """
    spec = self.experiment.spec
    if not spec.has_records:
      raise UsageError(
        f"{self.experiment.folder.path} is a run of task={spec.name}, which "
        f"predicts no records; give a run of task={tasks_with('schema')}."
      )
    columns = self.experiment.config.data.columns
    return {
      role: columns[role] for role in self.experiment.corpus.schema.inputs
    }

  def retriever(
    self, texts: Iterable[str] | None = None, split: str = "test"
  ) -> Retriever:
    """Index texts, so that they are found by others that go with them.

    >>> run.retriever(texts)(["sort a list"], number=1)
    [[Hit(text="sorted(iterable)", similarity=0.71)]]

    Args:
      texts: what may be found; None for the second texts of a split.
      split: "train", "valid" or "test".

    Raises:
      UsageError: if the run has not learned to compare texts.
    """
    experiment = self.experiment
    check_searchable(experiment.config, str(experiment.folder.path))
    if texts is None:
      rows = self.experiment.corpus.kept_rows(split)
      texts = (row["second"] for _, row in rows)
    return Retriever(self._predictor(), self.variables, texts)

  def log_probs(self, split: str = "valid") -> np.ndarray:
    """Score each token of a split but the first, given those before it.

    Returns:
      Log-probabilities in nats, float32 [N], in the order of the text.

    Raises:
      UsageError: if the run's task is not to predict the next token.
    """
    spec = self.experiment.spec
    if not spec.is_stateful:
      raise UsageError(
        f"{self.experiment.folder.path} is a run of task={spec.name}, which "
        "scores no running text; give a run of task="
        f"{tasks_with('is_stateful')}."
      )
    self.experiment.check_corpus()
    task, batches = self._task(split)
    model = task.model

    @jax.jit
    def score(variables: PyTree, batch: Batch, carry: PyTree):
      hidden, carry = model.apply(
        variables, batch["inputs"], carry, batch.get("resets")
      )
      log_probs_BT = model.apply(
        variables, hidden, batch["targets"], method="log_probs"
      )
      return log_probs_BT, carry

    carry = task.initial_carry(batches.batch_size)
    scores, counted = [], []
    for index in range(len(batches)):
      batch = batches[index]
      log_probs_BT, carry = score(self.variables, batch, carry)
      scores.append(np.asarray(log_probs_BT))
      counted.append(batch["weights"] > 0)
    # A row goes on in the next batch, or the next row goes on where it ends.
    axis = 1 if task.stateful else 0
    return np.concatenate(scores, axis)[np.concatenate(counted, axis)]

  def _task(self, split: str) -> tuple[Task, Rows]:
    """Return what turns batches into sums, and the batches of a split."""
    task = self.experiment.task
    if not self._cache:
      return task, self.experiment.corpus.eval_batches(split)
    model = self._cache.around(task.model, keeps_memory=task.stateful)
    task = dataclasses.replace(task, model=model, stateful=True)
    return task, self.experiment.corpus.rows(EVAL_ORDERS["stateful"], split)


def _with_int8_cache(model: nn.Module) -> nn.Module:
  if not hasattr(model, "int8_cache"):
    raise UsageError(
      f"{type(model).__name__} keeps no keys and values; leave int8_cache out."
    )
  return model.clone(int8_cache=True)


def _refuse(problem: Problem) -> None:
  raise UserError(f"{problem.where}: {problem.reason}; correct it.")
