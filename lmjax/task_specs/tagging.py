# SPDX-License-Identifier: Apache-2.0
"""Tagging: parts of speech, entities, and word segmentation."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs import loaders
from lmjax.task_specs.key import Key, choice, positive, rate
from lmjax.task_specs.loss_checks import check_loss_is_unused
from lmjax.task_specs.task_spec import TaskSpec


def _build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.tagging import Tagging

  return Tagging(
    model=model,
    constrained=config.tagging.constrained,
    **corpus.task_inputs,
  )


def _schema() -> Any:
  from lmjax.data.records.schemas import tagging

  return tagging.build


def _head() -> Any:
  from lmjax.models.heads import tagger

  return tagger.build


def _renderer(config: ConfigDict, vocabularies: Any) -> Any:
  from lmjax.prediction.tagging import TagRenderer

  return TagRenderer(vocabularies, config.tagging.scheme)


SPEC = TaskSpec(
  name="tagging",
  model_kind="text_encoder",
  build=_build,
  preview=loaders.prediction_preview,
  keys=dict(
    tagging=dict(
      # none: tags as they are | bio, bioes: tags of spans | segmentation: words
      # of a text without spaces, which are in the column of the tags
      scheme=choice("none", "bio", "bioes", "segmentation"),
      max_characters=Key(20),  # characters of a word that are read; 0: none
      character_encoder=choice("cnn", "lstm"),
      character_embedding_width=positive(30),
      character_width=positive(50),  # of the encoding of a word's characters
      bigram_width=Key(0),  # of embeddings of token bigrams; 0: none
      dropout=rate(0.3),  # after the encoder
      crf=Key(False),  # a linear-chain conditional random field over tags
      constrained=Key(True),  # predict only tag sequences valid in the scheme
    )
  ),
  schema=_schema,
  columns=dict(tokens="token", tags="tag"),
  source="python_tokens",
  head=_head,
  renderer=_renderer,
  checks=check_loss_is_unused,
)
