# SPDX-License-Identifier: Apache-2.0
"""Predicting one text from another."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from lmjax.decoding.beam import BeamSearch, greedy_search, repeat
from lmjax.decoding.coverage import attending_step, covered, uncovered
from lmjax.decoding.filters import Ban
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

    No bits of a character or byte: targets hold marks, which are no text.
    """
    return report_tokens(means)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Seq2Seq(DenoisingSeq2Seq):
  """Write a text for another one, learned from pairs of them.

  Attributes:
    beam_size: how many texts are searched for at once; 1 for greedy search.
    length_penalty: see lmjax.decoding.beam.penalty.
    coverage_penalty: see lmjax.decoding.beam.BeamSearch; above 0 the model must
      attend to its sources.
    num_return_sequences: hypotheses returned per source; at most `beam_size`.
    max_target_length: how many tokens are written at most.
    first_token: what every target begins behind.
    stop_token: what ends it.
    pad_token: what follows.
    banned: tokens that are never written.
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
    """Search for the best targets of sources.

    Returns:
      "targets", int32 [B, N, T], `<eos>` and padding behind their ends, the
      best first; and "scores", float32 [B, N]; see Hypotheses.
    """
    batch_size, number = len(batch["sources"]), self.beam_size
    rows, length = batch_size * number, self.max_target_length
    model, variables = self.model.for_decoding(variables, rows)
    memory = model.apply(
      variables, batch["sources"], batch["source_mask"], method="encode"
    )
    memory = repeat(memory, number)
    ban, covers = Ban(self.banned), self.coverage_penalty > 0
    read = functools.partial(_read_token, model, variables, memory)
    carry = model.initial_carry(rows, length)
    if covers:
      read = attending_step(model, variables, memory)
      carry = uncovered(carry, repeat(batch["source_mask"], number))

    def step(tokens_N: Array, carry: PyTree) -> tuple[Array, PyTree]:
      logits_NV, carry = read(tokens_N[:, None], carry)
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
        coverage=covered if covers else None,
        **settings,
      )
      found = search(step, carry, first_B)
    return dict(targets=found.tokens_BNT, scores=found.scores_BN)


def _read_token(
  model: nn.Module,
  variables: PyTree,
  memory: PyTree,
  tokens_N1: Array,
  carry: PyTree,
) -> tuple[Array, PyTree]:
  """Read a token a row; return the logits behind it, [N, V], and a carry."""
  hidden, carry = model.apply(variables, tokens_N1, carry, memory=memory)
  return model.apply(variables, hidden, method="logits")[:, 0], carry
