# SPDX-License-Identifier: Apache-2.0
"""A trained run, opened from its run directory alone."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmjax.data.records.schemas.schema import Row
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.data.word_vectors import WordVectors
from lmjax.experiment.experiment import open_experiment
from lmjax.experiment.pretrained_embeddings import learned_vectors, table_of
from lmjax.generation.decoding_strategies import (
  SAMPLE,
  AuxiliaryModel,
  DecodingStrategy,
)
from lmjax.generation.infilling import Infilled
from lmjax.generation.samplers import make_sampler
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.steering import Steering
from lmjax.generation.text_sampler import (
  GenerationResult,
  TextDelta,
  TextSampler,
)
from lmjax.interpretability.explainers import Explanation
from lmjax.models.neural_cache import CacheOptions
from lmjax.ops.int8 import dense_weights, quantize_weights
from lmjax.prediction.predictor import Predictor
from lmjax.prediction.retriever import Retriever
from lmjax.scoring.conditional import PairScorer
from lmjax.scoring.language_model import Score, TextScorer
from lmjax.scoring.split_scores import score_batches
from lmjax.task_specs import check_searchable, require
from lmjax.training.evaluation import eval_batches, evaluate_variables


class Run:
  """A run directory, ready to generate, score, predict and evaluate.

  Methods raise a UsageError if the task of the run does not support them.

  Attributes:
    experiment: the objects of its config.
    step: the training step of the checkpoint.
    variables: the variables of the model.

  Args:
    workdir: the run directory.
    checkpoint: "best" by checkpoint.metric, "latest", or a step.
    overrides: config values to replace, by dotted key.
    cache: options of a neural cache; None for none.
    int8_weights: whether weights are rounded to int8, which is also how they
      are stored while text is generated.
    int8_cache: whether a Transformer's keys and values are stored in int8.

  Raises:
    UserError: if the directory contains no run, or no such checkpoint.
  """

  def __init__(
    self,
    workdir: str | Path,
    checkpoint: str | int = "best",
    overrides: Mapping[str, Any] | None = None,
    cache: CacheOptions | None = None,
    int8_weights: bool = False,
    int8_cache: bool = False,
  ):
    self.experiment = open_experiment(workdir, overrides or {})
    self._cache, self._int8_weights = cache, int8_weights
    if cache:
      self._require("is_stateful", "does not support a neural cache")
    if int8_cache:
      self.experiment.use_int8_cache()
    self.step, self.variables = self.experiment.restore(checkpoint)
    if int8_weights:
      self.variables = dense_weights(quantize_weights(self.variables))

  @property
  def tokenizer(self) -> Tokenizer | Vocabularies:
    """The tokenizer, or the vocabularies of a task on records."""
    return self.experiment.tokenizer

  @functools.cached_property
  def vectors(self) -> WordVectors:
    """The names of tokens and their learned vectors."""
    experiment, params = self.experiment, self.variables["params"]
    tokenizer = experiment.corpus.text_tokenizer
    return learned_vectors(params, experiment.config, tokenizer)

  def auxiliary_model(self, name: str = "") -> AuxiliaryModel:
    """Return the model as a draft or reranker; messages call it `name`."""
    name = name or str(self.experiment.folder.path)
    config = self.experiment.config
    require(config, "is_auxiliary", name, "cannot assist another run")
    model = self.experiment.model
    return AuxiliaryModel(name, model, self.variables, self.tokenizer)

  @functools.cached_property
  def sampler(self) -> TextSampler:
    """The sampler of the task."""
    config, model = self.experiment.config, self.experiment.model
    model = self._cache.wrap(model) if self._cache else model
    options = dict(int8_weights=self._int8_weights, caches_layout=True)
    return make_sampler(config, model, self.tokenizer, **options)

  def generate(
    self,
    prompts: str | Sequence[str],
    sampling_params: SamplingParams | None = None,
    *,
    strategy: DecodingStrategy = SAMPLE,
    constraints: Steering | None = None,
    guidance: Steering | None = None,
    stream: bool = False,
    **options: Any,
  ) -> GenerationResult | Iterator[TextDelta]:
    """Generate text for one or many prompts, or sources of a seq2seq run.

    >>> run.generate("The ", SamplingParams(num_tokens=100, top_p=0.9)).text
    >>> for delta in run.generate("The ", stream=True):
    ...   print(delta.text, end="", flush=True)

    A second call with the same strategy and shapes compiles nothing.

    Args:
      prompts: one or many texts.
      sampling_params: number of tokens and samples, seed, stop strings, and how
        tokens are sampled.
      strategy: how sequences are selected; see
        lmjax.generation.decoding_strategies.
      constraints: a Constraints: what the text must match.
      guidance: a Guidance: other runs that change the distribution.
      stream: whether to return an iterator of new text instead of a result.
      **options: `batch_size`, `max_seconds` and, if streaming, `chunk_size`;
        see TextSampler.
    """
    options |= dict(
      strategy=strategy, constraints=constraints, guidance=guidance
    )
    method = self.sampler.stream if stream else self.sampler.generate
    return method(self.variables, prompts, sampling_params, **options)

  @functools.cached_property
  def scorer(self) -> TextScorer | PairScorer:
    """The scorer of the task, with the state kept as in evaluation."""
    self._require("scorer", "cannot score text")
    experiment = self.experiment
    args = experiment.config, experiment.task, experiment.model, self.tokenizer
    return experiment.spec.scorer()(*args, self._cache)

  def score(
    self, texts: Sequence[str], control_code: str = "", prompt: str = ""
  ) -> list[Score]:
    """Score each token given those before it, and a prompt or source."""
    return self.scorer(self.variables, texts, control_code, prompt)

  def fill(
    self, text: str, sampling_params: SamplingParams | None = None
  ) -> Infilled:
    """Fill the blanks `___` of a text; see lmjax.generation.infilling."""
    self._require("infiller", "cannot fill blanks")
    infiller = self.experiment.spec.infiller()
    return infiller(self.experiment.model, self.tokenizer)(
      self.variables, text, sampling_params or SamplingParams()
    )

  def explain(
    self, text: str, target: str = "", num_points: int = 64
  ) -> Explanation:
    """Attribute a prediction to the tokens of a text.

    Args:
      text: the text.
      target: the label, or next token, to explain; empty for the most likely.
      num_points: see lmjax.interpretability.attribution.integrated_gradients.
    """
    self._require("explainer", "makes no predictions that can be explained")
    experiment, params = self.experiment, self.variables.get("params", {})
    # Raises an error if there are no embeddings to attribute to.
    table_of(params, experiment.config.model.name)
    args = experiment.task, self.variables, self.tokenizer, text, target
    explain = experiment.spec.explainer()
    return explain(*args, num_points, experiment.max_length)

  def evaluate(self, split: str = "valid") -> dict[str, float]:
    """Evaluate on a whole split, "train", "valid" or "test".

    The neural cache is kept between sequences whatever `data.order` is.
    """
    task, batches = eval_batches(self.experiment, split, self._cache)
    report = evaluate_variables(task, batches, self.variables, self.step)
    if self.experiment.spec.has_records:
      rows = self.experiment.corpus.kept_rows(split)
      predictor = self.predictor()
      report |= predictor.evaluate(predictor(self.variables, rows))
    return report

  def predict(
    self, rows: Iterable[Row], batch_size: int = 0
  ) -> Iterator[dict[str, Any]]:
    """Predict rows, given as texts by role."""
    columns = self.input_columns
    return self.predictor(batch_size).predict(self.variables, rows, columns)

  @property
  def input_columns(self) -> dict[str, str]:
    """The columns that the model reads, by role."""
    self._require("schema", "makes no predictions for records")
    columns = self.experiment.config.data.columns
    return {x: columns[x] for x in self.experiment.corpus.schema.inputs}

  def retriever(
    self, texts: Iterable[str] | None = None, split: str = "test"
  ) -> Retriever:
    """Index texts for search; None for the second texts of a split.

    >>> run.retriever(texts)(["sort a list"], number=1)
    [[Hit(text="sorted(iterable)", similarity=0.71)]]
    """
    experiment = self.experiment
    check_searchable(experiment.config, str(experiment.folder.path))
    if texts is None:
      texts = (row["second"] for _, row in experiment.corpus.kept_rows(split))
    return Retriever(self.predictor(), self.variables, texts)

  def log_probs(self, split: str = "valid") -> np.ndarray:
    """Score a split; see lmjax.scoring.split_scores.score_batches."""
    self._require("is_stateful", "cannot score running text")
    task, batches = eval_batches(self.experiment, split, self._cache)
    return score_batches(task, batches, self.variables)

  def predictor(self, batch_size: int = 0) -> Predictor:
    """Return the predictor of the task; 0 for the batch size of training."""
    experiment = self.experiment
    batch_size = batch_size or experiment.config.data.batch_size
    corpus, renderer = experiment.corpus, experiment.renderer
    return Predictor(experiment.task, corpus, renderer, batch_size)

  def _require(self, attribute: str, problem: str) -> None:
    config, path = self.experiment.config, self.experiment.folder.path
    require(config, attribute, str(path), problem)
