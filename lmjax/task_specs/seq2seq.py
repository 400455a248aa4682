# SPDX-License-Identifier: Apache-2.0
"""Sequence-to-sequence learning from pairs of source and target."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.task_specs import loaders
from lmjax.task_specs.key import Key, choice, positive
from lmjax.task_specs.task_spec import TaskSpec


def _build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.seq2seq import Seq2Seq
  from lmjax.tasks.task import LossOptions

  options = config.seq2seq
  return Seq2Seq(
    model=model,
    loss_options=LossOptions(**config.loss),
    beam_size=options.beam_size,
    length_penalty=options.length_penalty,
    coverage_penalty=options.coverage_penalty,
    num_return_sequences=options.num_return_sequences,
    **corpus.task_inputs,
  )


def _schema() -> Any:
  from lmjax.data.records.schemas import seq2seq

  return seq2seq.build


def _renderer(config: ConfigDict, vocabularies: Any) -> Any:
  from lmjax.prediction.seq2seq import TextRenderer

  return TextRenderer(vocabularies, config.seq2seq.metrics)


def _sampler() -> Any:
  from lmjax.generation.seq2seq_sampler import Seq2SeqSampler

  return Seq2SeqSampler


def _scorer() -> Any:
  from lmjax.scoring.scorers import target_scorer

  return target_scorer


def _check(config: ConfigDict) -> None:
  from lmjax.prediction.seq2seq import METRICS, names_of

  options, model = config.seq2seq, config.model
  if options.num_return_sequences > options.beam_size:
    raise UsageError(
      f"seq2seq.num_return_sequences={options.num_return_sequences} must be at "
      f"most seq2seq.beam_size={options.beam_size}."
    )
  attends = "attention" not in model or model.attention != "none"
  if options.coverage_penalty and (options.beam_size == 1 or not attends):
    raise UsageError(
      f"seq2seq.coverage_penalty={options.coverage_penalty} needs "
      "seq2seq.beam_size above 1 and a model with attention to its source; set "
      "it to 0."
    )
  for name in names_of(options.metrics):
    if name not in METRICS:
      raise UsageError(
        f"seq2seq.metrics={options.metrics} names {name!r}, which is not "
        f"known; choose among {', '.join(METRICS)}."
      )
  if "positions" in model and model.positions == "learned":
    max_context = model.max_context or config.data.seq_len
    if options.max_target_length > max_context:
      raise UsageError(
        f"seq2seq.max_target_length={options.max_target_length} is more than "
        f"the {max_context} learned positions; set model.max_context="
        f"{options.max_target_length}."
      )


SPEC = TaskSpec(
  name="seq2seq",
  model_kind="encoder_decoder",
  build=_build,
  preview=loaders.prediction_preview,
  keys=dict(
    seq2seq=dict(
      # Of targets; empty: one vocabulary for sources and targets
      target_tokenizer=choice(
        "", "byte", "character", "word", "word_punctuation", "bpe"
      ),
      beam_size=positive(1),  # hypotheses of the beam search; 1: greedy
      length_penalty=Key(0.6),  # α of Wu et al. 2016; 0: none
      coverage_penalty=Key(0.0),  # β of Wu et al. 2016, with beam_size above 1
      num_return_sequences=positive(1),  # hypotheses shown per source
      max_target_length=Key(0),  # tokens that are generated; 0: data.seq_len
      # Of bleu, chrf, rouge, exact_match, token_error_rate
      metrics=Key("bleu,chrf,exact_match,token_error_rate"),
    )
  ),
  schema=_schema,
  columns=dict(source="source", target="target"),
  source="number_words",
  renderer=_renderer,
  sampler=_sampler,
  scorer=_scorer,
  checks=_check,
  reads_sources=True,
)
