# SPDX-License-Identifier: Apache-2.0
"""Matching of text pairs: labels, scores, and retrieval."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.task_specs import loaders
from lmjax.task_specs.key import (
  Key,
  above_zero,
  choice,
  positive,
  rate,
  unbounded,
)
from lmjax.task_specs.loss_checks import check_loss_is_unused
from lmjax.task_specs.task_spec import TaskSpec


def _build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.matching import Matching

  options = config.matching
  return Matching(
    model=model,
    min_score=options.min_score,
    max_score=options.max_score,
    temperature=options.temperature,
    margin=options.margin,
    negatives=options.negatives,
    **corpus.task_inputs,
  )


def _schema() -> Any:
  from lmjax.data.records.schemas import matching

  return matching.build


def _head() -> Any:
  from lmjax.models.heads import text_matcher

  return text_matcher.build


def _renderer(config: ConfigDict, vocabularies: Any) -> Any:
  from lmjax.prediction.matching import MatchRenderer

  return MatchRenderer(vocabularies, config.matching.num_candidates)


def _check_searchable(config: ConfigDict, path: str) -> None:
  # The other losses train a function of a pair, not vectors whose dot product
  # is the similarity.
  if config.matching.loss not in ("contrastive", "triplet"):
    raise UsageError(
      f"{path} was trained with matching.loss={config.matching.loss}, whose "
      "vectors cannot be searched; give a run of contrastive or triplet."
    )


SPEC = TaskSpec(
  name="matching",
  model_kind="text_encoder",
  build=_build,
  preview=loaders.prediction_preview,
  keys=dict(
    matching=dict(
      # Pairs with a label: classification; with a score: regression (squared
      # error) | distribution (over integer scores); positive pairs, with the
      # other pairs of the batch as negatives: contrastive | triplet
      loss=Key(
        "contrastive",
        choices=(
          "classification",
          "regression",
          "distribution",
          "contrastive",
          "triplet",
        ),
      ),
      # cross: one encoder reads both texts in one sequence
      encoders=Key("separate", choices=("shared", "separate", "cross")),
      # Of the second text; empty: one tokenizer for both
      second_tokenizer=choice(
        "", "byte", "character", "word", "word_punctuation", "bpe"
      ),
      pooling=Key("max", choices=("last", "first", "mean", "max", "attention")),
      comparison=choice("cosine", "dot", "bilinear", "manhattan", "features"),
      features_width=positive(50),  # features: hidden units that compare them
      dropout=rate(0.0),  # on the pooled features
      min_score=unbounded(1.0),  # regression, distribution: lowest score
      max_score=unbounded(5.0),  # and highest score
      temperature=above_zero(0.05),  # contrastive: divisor of similarities
      margin=Key(0.2),  # triplet: of the positive over the negative
      negatives=choice("hardest", "all"),  # triplet
      num_candidates=Key(1000),  # second texts of a retrieval test; 0: all
    )
  ),
  schema=_schema,
  columns=dict(first="signature", second="summary", label="label"),
  source="python_signatures",
  head=_head,
  renderer=_renderer,
  checks=check_loss_is_unused,
  check_searchable=_check_searchable,
)
