# SPDX-License-Identifier: Apache-2.0
"""Predicting one text from another."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from lmjax.decoding.beam import BeamSearch, greedy_search
from lmjax.decoding.coverage import CoverageModel, coverage
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.logits_processors import SuppressTokens
from lmjax.tasks.language_modeling import LanguageModeling, report_tokens
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class DenoisingSeq2Seq(LanguageModeling):
  """Predict each target from the sources and the targets before it.

  Batches have the fields `sources` and `source_mask` beside those of language
  modeling; the model turns them into a memory by its method `encode`.
  """

  @staticmethod
  def read(
    model: nn.Module, batch: Batch, carry: PyTree
  ) -> tuple[PyTree, PyTree]:
    """Read the sources, then the inputs with them in mind."""
    memory = model.encode(batch["sources"], batch["source_mask"])
    return model(batch["inputs"], carry, memory=memory)

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read, of the targets.

    Not bits per character or byte: targets contain special tokens.
    """
    return report_tokens(means)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Seq2Seq(DenoisingSeq2Seq):
  """Write a text for another one, learned from pairs of them.

  Attributes:
    beam_size: number of hypotheses; 1 for greedy search.
    length_penalty: see lmjax.decoding.beam.length_normalizer.
    coverage_penalty: see lmjax.decoding.beam.BeamSearch; above 0 the model must
      attend to its sources.
    num_return_sequences: hypotheses returned per source; at most `beam_size`.
    max_target_length: maximum number of generated tokens.
    first_token: token before every target.
    stop_token: ends a target.
    pad_token: padding after it.
    banned: tokens that are never generated.
  """

  beam_size: int
  length_penalty: float
  coverage_penalty: float
  num_return_sequences: int
  max_target_length: int
  first_token: int
  stop_token: int
  pad_token: int
  banned: tuple[int, ...]

  def predict(self, variables: PyTree, batch: Batch) -> dict[str, Array]:
    """Search for the most probable targets of sources.

    Returns:
      "targets", int32 [B, N, T], best first, ending in `<eos>` and padding; and
      "scores", float32 [B, N]; see Hypotheses.
    """
    batch_size, number = len(batch["sources"]), self.beam_size
    rows, length = batch_size * number, self.max_target_length
    model = DecodingModel.create(self.model, variables, rows).encode_source(
      batch["sources"], batch["source_mask"]
    )
    has_coverage = self.coverage_penalty > 0
    if has_coverage:
      model = CoverageModel.of(model)
    model = model.repeat(number)
    carry = model.initial_carry(rows, length)
    ban = SuppressTokens(self.banned)

    def step(token_N: Array, carry: PyTree) -> tuple[Array, PyTree]:
      logits_NV, carry = model.decode_step(token_N, carry)
      return ban(logits_NV), carry

    first_B = jnp.full(batch_size, self.first_token)
    settings = dict(
      length_penalty=self.length_penalty,
      stop_token=self.stop_token,
      pad_token=self.pad_token,
    )
    if number == 1:
      found = greedy_search(step, carry, first_B, length, **settings)
    else:
      search = BeamSearch(
        num_tokens=length,
        beam_size=number,
        num_return_sequences=self.num_return_sequences,
        coverage_penalty=self.coverage_penalty,
        coverage=coverage if has_coverage else None,
        **settings,
      )
      found = search(step, carry, first_B)
    return dict(targets=found.tokens_BNT, scores=found.scores_BN)
