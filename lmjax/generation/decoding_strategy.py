# SPDX-License-Identifier: Apache-2.0
"""How texts are searched for, as users say it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn

from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.beam_generator import BeamGenerator
from lmjax.generation.best_of_generator import (
  BestOf,
  Judge,
  by_log_probs,
  by_model,
  by_themselves,
)
from lmjax.generation.contrastive_generator import ContrastiveGenerator
from lmjax.generation.generator import MOST, Generator, Request, check_minimum
from lmjax.generation.minimum_bayes_risk import UTILITIES
from lmjax.generation.one_shot_generator import OneShotGenerator
from lmjax.generation.sampling_params import LARGEST
from lmjax.generation.speculative_generator import SpeculativeGenerator
from lmjax.types import PyTree

# Setting → its highest value, where it may be 0 and nothing below.
_MOST = dict(
  beam_size=MOST,
  length_penalty=10,  # a power of the length, which float32 holds
  coverage_penalty=LARGEST,
  diversity_penalty=LARGEST,
  contrastive_k=MOST,
  best_of=MOST,
)


class AuxiliaryModel(NamedTuple):
  """A language model that helps another.

  Attributes:
    name: what users call it, as a flag.
    model: keeps the contract of lmjax.models.
    variables: its own.
    tokenizer: the one that it was trained with.
  """

  name: str
  model: nn.Module
  variables: PyTree
  tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
  """How texts are found; by default they are drawn, one for each request.

  Attributes:
    beam_size: of beam search; 0 for none.
    length_penalty: see lmjax.decoding.beam.penalty.
    coverage_penalty: see lmjax.decoding.beam.BeamSearch; of texts for others.
    num_groups: of diverse beam search.
    diversity_penalty: see lmjax.decoding.beam.BeamSearch.
    early_stopping: see there.
    contrastive_k: candidates of contrastive search; 0 for none.
    contrastive_alpha: see lmjax.decoding.contrastive.
    best_of: how many texts are drawn for one that is kept; 0 for none.
    reranker: who chooses among them; None for the model itself.
    rerank_per_token: whether it looks at means over tokens, or at sums.
    mbr: utility by which texts choose among themselves, of UTILITIES; empty for
      none.
    draft: the draft model of speculative decoding; None for none.
    prompt_lookup: whether they are looked up in the text itself.
    num_draft: how many are proposed at a time.

  Raises:
    UsageError: if a number is out of range, or settings do not go together.
  """

  beam_size: int = 0
  length_penalty: float = 0.0
  coverage_penalty: float = 0.0
  num_groups: int = 1
  diversity_penalty: float = 0.0
  early_stopping: bool | str = True
  contrastive_k: int = 0
  contrastive_alpha: float = 0.6
  best_of: int = 0
  reranker: AuxiliaryModel | None = None
  rerank_per_token: bool = True
  mbr: str = ""
  draft: AuxiliaryModel | None = None
  prompt_lookup: bool = False
  num_draft: int = 4

  def __post_init__(self):
    """Check the settings."""
    check_minimum(num_groups=self.num_groups, num_draft=self.num_draft)
    for name, most in _MOST.items():
      if not 0 <= getattr(self, name) <= most:
        raise UsageError(
          f"{name}={getattr(self, name)} must be at least 0, and at most "
          f"{most:,.0f}."
        )
    if max(self.beam_size, 1) % self.num_groups:
      raise UsageError(
        f"num_groups={self.num_groups} must divide beam_size={self.beam_size}."
      )
    for name in ("length_penalty", "coverage_penalty"):
      if getattr(self, name) and not self.beam_size:
        raise UsageError(
          f"{name}={getattr(self, name)} is of beams; give beam_size."
        )
    if self.diversity_penalty and self.num_groups == 1:
      raise UsageError(
        f"diversity_penalty={self.diversity_penalty} is between groups of a "
        "beam; give num_groups above 1."
      )
    if not 0 <= self.contrastive_alpha <= 1:
      raise UsageError(
        f"contrastive_alpha={self.contrastive_alpha} must be from 0 to 1."
      )
    if self.mbr and self.mbr not in UTILITIES:
      raise UsageError(f"mbr={self.mbr} must be {' or '.join(UTILITIES)}.")
    if (self.mbr or self.reranker) and not self.best_of:
      raise UsageError(
        "reranking and mbr choose among texts; say by best_of how many to draw."
      )
    ways = dict(
      beam_size=self.beam_size,
      contrastive_k=self.contrastive_k,
      best_of=self.best_of,
      draft=self.draft,
      prompt_lookup=self.prompt_lookup,
    )
    given = [name for name, value in ways.items() if value]
    if self.mbr and self.reranker:
      given = ["mbr", "reranker"]
    if len(given) > 1:
      raise UsageError(f"give either {given[0]} or {given[1]}, not both.")

  @property
  def draws(self) -> bool:
    """Say whether each text is drawn token by token, and may end at any."""
    is_other = self.beam_size or self.contrastive_k or self.best_of
    return not (is_other or self.draft or self.prompt_lookup)

  @property
  def num_rows(self) -> int:
    """How many texts are looked at for one that is found."""
    return max(self.best_of, self.beam_size, 1)

  def generator(
    self,
    model: nn.Module,
    tokenizer: Tokenizer,
    bidirectional_prompt: bool = False,
    **options: bool,
  ) -> Generator | OneShotGenerator | BestOf:
    """Make what writes tokens.

    Args:
      model: keeps the contract of lmjax.models.
      tokenizer: what it writes in.
      bidirectional_prompt: whether it reads prompts in both directions.
      **options: of Generator.

    Raises:
      UsageError: if a helper has another tokenizer.
    """
    for helper in (self.reranker, self.draft):
      if helper and helper.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UsageError(
          f"{helper.name} has another tokenizer than the run that it helps; "
          "give a run that was trained on the same tokens."
        )
    if self.beam_size:
      return BeamGenerator(
        model,
        bidirectional_prompt,
        beam_size=self.beam_size,
        length_penalty=self.length_penalty,
        coverage_penalty=self.coverage_penalty,
        num_groups=self.num_groups,
        diversity_penalty=self.diversity_penalty,
        early_stopping=self.early_stopping,
      )
    if self.contrastive_k:
      return ContrastiveGenerator(
        model, bidirectional_prompt, self.contrastive_k, self.contrastive_alpha
      )
    if self.draft or self.prompt_lookup:
      draft = self.draft and (self.draft.model, self.draft.variables)
      return SpeculativeGenerator(
        model, bidirectional_prompt, draft, self.num_draft
      )
    generator = Generator(
      model, bidirectional_prompt=bidirectional_prompt, **options
    )
    if not self.best_of:
      return generator
    judge = self._judge(tokenizer)
    return BestOf(generator, self.best_of, judge, self._check_reranker)

  def _check_reranker(self, requests: Sequence[Request]) -> None:
    """See that the reranker's context holds what may be drawn."""
    max_context = self.reranker and self.reranker.model.max_context
    for request in requests:
      longest = len(request.tokens) + request.num_tokens - 1
      if max_context is not None and longest > max_context:
        raise UsageError(
          f"{self.reranker.name} has a context of {max_context}, and the "
          f"prompt of {len(request.tokens)} tokens and num_tokens="
          f"{request.num_tokens} more do not fit into it; ask for fewer."
        )

  def _judge(self, tokenizer: Tokenizer) -> Judge:
    if self.mbr:
      return by_themselves(tokenizer.decode, UTILITIES[self.mbr]())
    if self.reranker:
      _, model, variables, _ = self.reranker
      return by_model(model, variables, self.rerank_per_token)
    return by_log_probs(self.rerank_per_token)
