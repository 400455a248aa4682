# SPDX-License-Identifier: Apache-2.0
"""Decoding strategies: how sequences are selected.

Each strategy is a small frozen dataclass that builds its generator. `Sample` is
the only one that can stream; the others complete whole sequences.

>>> run.generate("The ", strategy=Beam(beam_size=8, length_penalty=0.6))
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import flax.linen as nn

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.beam import EARLY_STOPPING, BeamSearch
from lmjax.errors import UsageError, check_positive
from lmjax.generation.beam_generator import BeamGenerator
from lmjax.generation.best_of_generator import (
  BestOfGenerator,
  SequenceScorer,
  score_by_log_probs,
  score_by_model,
  score_by_utility,
)
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.contrastive_generator import ContrastiveGenerator
from lmjax.generation.generator import Generator, ModelBinder
from lmjax.generation.minimum_bayes_risk import UTILITIES
from lmjax.generation.requests import Request, check_fits
from lmjax.generation.sample_generator import SampleGenerator
from lmjax.generation.sampling_params import LARGEST
from lmjax.generation.speculative_generator import (
  DraftModel,
  SpeculativeGenerator,
)
from lmjax.types import PyTree


# Compared by identity: variables are arrays, which have no equality.
@dataclasses.dataclass(frozen=True, eq=False)
class AuxiliaryModel:
  """A language model that assists another; see `Run.auxiliary_model`.

  Attributes:
    name: what messages call it, such as a flag.
    model: keeps the contract of lmjax.models.
    variables: its variables.
    tokenizer: the tokenizer that it was trained with.
  """

  name: str
  model: nn.Module
  variables: PyTree
  tokenizer: Tokenizer

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    """Check that both models have the same tokens.

    Raises:
      UsageError: if the tokenizers differ.
    """
    if self.tokenizer.fingerprint != tokenizer.fingerprint:
      raise UsageError(
        f"{self.name} has another tokenizer than the run that it assists; "
        "give a run that was trained with the same tokenizer."
      )


class DecodingStrategy(Protocol):
  """How sequences are selected."""

  @property
  def rows_per_sequence(self) -> int:
    """Number of rows of a batch that one requested sequence takes."""

  def build(self, binder: ModelBinder, tokenizer: Tokenizer) -> Generator:
    """Build the generator.

    Args:
      binder: makes the model.
      tokenizer: the tokenizer of the generated text.

    Raises:
      UsageError: if an auxiliary model has another tokenizer.
    """


@dataclasses.dataclass(frozen=True)
class Sample:
  """Sample each token from the model; temperature 0 is greedy search."""

  rows_per_sequence = 1

  def build(self, binder: ModelBinder, tokenizer: Tokenizer) -> SampleGenerator:
    """Build the generator; see DecodingStrategy."""
    return SampleGenerator(binder, tokenizer.pad_id, (tokenizer.eos_id,))


SAMPLE = Sample()  # the default of arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
  """Beam search for the most probable sequences (see lmjax.decoding.beam).

  Attributes:
    beam_size: number of hypotheses, at least 1.
    length_penalty: α of Wu et al. 2016; above 0 favors longer sequences.
    coverage_penalty: β of Wu et al. 2016; above 0 favors sequences that attend
      to all of their source.
    early_stopping: True, False or "never"; see BeamSearch.

  Raises:
    UsageError: if a value is out of range.
  """

  beam_size: int = 4
  length_penalty: float = 0.0
  coverage_penalty: float = 0.0
  early_stopping: bool | str = True

  def __post_init__(self):
    """Check the values."""
    check_positive(beam_size=self.beam_size)
    # A power of the length, which float32 must be able to represent.
    _check_range(0, 10, length_penalty=self.length_penalty)
    _check_range(0, LARGEST, coverage_penalty=self.coverage_penalty)
    if self.early_stopping not in EARLY_STOPPING:
      raise UsageError(
        f"early_stopping={self.early_stopping!r} must be one of "
        f"{', '.join(map(repr, EARLY_STOPPING))}."
      )

  @property
  def rows_per_sequence(self) -> int:
    """See DecodingStrategy."""
    return self.beam_size

  def build(self, binder: ModelBinder, tokenizer: Tokenizer) -> BeamGenerator:
    """Build the generator; see DecodingStrategy."""
    search = BeamSearch(
      num_tokens=1,
      stop_token=tokenizer.eos_id,
      pad_token=tokenizer.pad_id,
      **dataclasses.asdict(self),
    )
    return BeamGenerator(binder, search)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiverseBeam(Beam):
  """Diverse beam search (Vijayakumar et al. 2016, arXiv:1610.02424).

  Attributes:
    num_groups: number of groups; must divide `beam_size`.
    diversity_penalty: nats that a token costs for each earlier group that chose
      it in the same step.
  """

  num_groups: int = 2
  diversity_penalty: float = 0.5

  def __post_init__(self):
    """Check the values."""
    super().__post_init__()
    check_positive(num_groups=self.num_groups)
    _check_range(0, LARGEST, diversity_penalty=self.diversity_penalty)
    if self.beam_size % self.num_groups:
      raise UsageError(
        f"num_groups={self.num_groups} must divide beam_size={self.beam_size}."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive:
  """Contrastive search (Su et al. 2022, arXiv:2202.06417).

  Attributes:
    num_candidates: number of most likely tokens that are compared.
    alpha: weight of the similarity to earlier tokens, from 0 to 1.

  Raises:
    UsageError: if a value is out of range.
  """

  num_candidates: int = 4
  alpha: float = 0.6

  def __post_init__(self):
    """Check the values."""
    check_positive(num_candidates=self.num_candidates)
    _check_range(0, 1, alpha=self.alpha)

  @property
  def rows_per_sequence(self) -> int:
    """See DecodingStrategy."""
    return self.num_candidates

  def build(
    self, binder: ModelBinder, tokenizer: Tokenizer
  ) -> ContrastiveGenerator:
    """Build the generator; see DecodingStrategy."""
    return ContrastiveGenerator(
      binder,
      tokenizer.pad_id,
      tokenizer.eos_id,
      self.num_candidates,
      self.alpha,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speculative:
  """Sample with a draft model (Leviathan et al. 2023, arXiv:2211.17192).

  The samples have the distribution of the model alone.

  Attributes:
    draft: a faster model with the same tokenizer.
    num_draft: number of tokens that it proposes at a time.

  Raises:
    UsageError: if a value is out of range.
  """

  draft: AuxiliaryModel
  num_draft: int = 4
  rows_per_sequence = 1

  def __post_init__(self):
    """Check the values."""
    check_positive(num_draft=self.num_draft)

  def build(
    self, binder: ModelBinder, tokenizer: Tokenizer
  ) -> SpeculativeGenerator:
    """Build the generator; see DecodingStrategy."""
    draft = self.draft
    draft.check_tokenizer(tokenizer)
    return SpeculativeGenerator(
      binder,
      tokenizer.pad_id,
      tokenizer.eos_id,
      self.num_draft,
      DraftModel(
        ModelBinder(draft.model, caches_layout=True),
        draft.variables,
        draft.name,
      ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptLookup:
  """Sample with tokens copied from earlier text as the draft (Saxena 2023).

  Attributes:
    num_draft: number of tokens that are copied at a time.

  Raises:
    UsageError: if a value is out of range.
  """

  num_draft: int = 4
  rows_per_sequence = 1

  def __post_init__(self):
    """Check the values."""
    check_positive(num_draft=self.num_draft)

  def build(
    self, binder: ModelBinder, tokenizer: Tokenizer
  ) -> SpeculativeGenerator:
    """Build the generator; see DecodingStrategy."""
    return SpeculativeGenerator(
      binder, tokenizer.pad_id, tokenizer.eos_id, self.num_draft
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestOf:
  """Sample several sequences and keep the most probable one.

  Attributes:
    num_sequences: number of sequences sampled for each that is kept.
    reranker: the model that scores them; None for the model that samples.
    per_token: whether to compare means over tokens instead of sums.

  Raises:
    UsageError: if a value is out of range.
  """

  num_sequences: int = 4
  reranker: AuxiliaryModel | None = None
  per_token: bool = True

  def __post_init__(self):
    """Check the values."""
    check_positive(num_sequences=self.num_sequences)

  @property
  def rows_per_sequence(self) -> int:
    """See DecodingStrategy."""
    return self.num_sequences

  def build(self, binder: ModelBinder, tokenizer: Tokenizer) -> BestOfGenerator:
    """Build the generator; see DecodingStrategy."""
    return BestOfGenerator(
      Sample().build(binder, tokenizer),
      tokenizer,
      self.num_sequences,
      self._scorer(tokenizer),
      self._check,
    )

  def _scorer(self, tokenizer: Tokenizer) -> SequenceScorer:
    if self.reranker is None:
      return score_by_log_probs(self.per_token)
    self.reranker.check_tokenizer(tokenizer)
    scorer = ContinuationScorer(
      ModelBinder(self.reranker.model), tokenizer.pad_id
    )
    return score_by_model(scorer, self.reranker.variables, self.per_token)

  def _check(self, requests: Sequence[Request]) -> None:
    """Check that sequences fit into the context of the reranker."""
    if self.reranker is not None:
      for request in requests:
        max_context = self.reranker.model.max_context
        check_fits(max_context, request, self.reranker.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimumBayesRisk:
  """Sample several sequences and keep the one most similar to the others.

  See lmjax.generation.minimum_bayes_risk.

  Attributes:
    num_sequences: number of sequences sampled for each that is kept.
    utility: similarity of two texts, "chrf" or "bleu".

  Raises:
    UsageError: if a value is out of range.
  """

  num_sequences: int = 16
  utility: str = "chrf"

  def __post_init__(self):
    """Check the values."""
    check_positive(num_sequences=self.num_sequences)
    if self.utility not in UTILITIES:
      raise UsageError(
        f"utility={self.utility} must be {' or '.join(UTILITIES)}."
      )

  @property
  def rows_per_sequence(self) -> int:
    """See DecodingStrategy."""
    return self.num_sequences

  def build(self, binder: ModelBinder, tokenizer: Tokenizer) -> BestOfGenerator:
    """Build the generator; see DecodingStrategy."""
    return BestOfGenerator(
      Sample().build(binder, tokenizer),
      tokenizer,
      self.num_sequences,
      score_by_utility(tokenizer.decode, UTILITIES[self.utility]()),
    )


def _check_range(minimum: float, maximum: float, **values: Any) -> None:
  for name, value in values.items():
    if not minimum <= value <= maximum:  # also if it is not a number
      raise UsageError(
        f"{name}={value} must be from {minimum:,} to {maximum:,.0f}."
      )
