# SPDX-License-Identifier: Apache-2.0
"""Flags of decoding strategies."""

from collections.abc import Callable

from absl import flags

from lmjax.errors import UsageError
from lmjax.generation.decoding_strategies import (
  SAMPLE,
  AuxiliaryModel,
  Beam,
  BestOf,
  Contrastive,
  DecodingStrategy,
  DiverseBeam,
  MinimumBayesRisk,
  PromptLookup,
  Speculative,
)
from lmjax.generation.minimum_bayes_risk import UTILITIES
from lmjax.run import Run

_EARLY_STOPPING = {"true": True, "false": False, "never": "never"}


def define_strategy_flags() -> Callable[[], DecodingStrategy]:
  """Define the flags; return a function that builds the strategy they name."""
  flags.DEFINE_integer(
    "beam_size", 0, "Beam search with this many hypotheses; 0 samples.", 0
  )
  flags.DEFINE_float(
    "length_penalty", 0.0, "Beam search: above 0 favors longer texts."
  )
  flags.DEFINE_float(
    "coverage_penalty",
    0.0,
    "Beam search of seq2seq runs: above 0 favors texts that attend to all of "
    "the source.",
  )
  flags.DEFINE_integer("num_groups", 1, "Groups of diverse beam search.", 1)
  flags.DEFINE_float(
    "diversity_penalty",
    0.0,
    "Diverse beam search: nats that a token costs for each earlier group that "
    "chose it.",
  )
  flags.DEFINE_enum(
    "early_stopping",
    "true",
    list(_EARLY_STOPPING),
    "Beam search: true stops at beam_size finished texts, false when the best "
    "unfinished one scores lower, never when no better text is possible.",
  )
  flags.DEFINE_integer(
    "contrastive_k", 0, "Contrastive search with this many candidates.", 0
  )
  flags.DEFINE_float(
    "contrastive_alpha", 0.6, "Weight of the degeneration penalty.", 0.0, 1.0
  )
  flags.DEFINE_integer(
    "best_of", 0, "Sample this many texts for each that is kept.", 0
  )
  flags.DEFINE_boolean(
    "rerank_per_token", True, "With --best_of: compare means over tokens."
  )
  flags.DEFINE_string(
    "rerank_workdir", "", "With --best_of: run that scores the texts."
  )
  flags.DEFINE_enum(
    "mbr",
    "",
    ["", *UTILITIES],
    "With --best_of: keep the text most similar to the others (minimum Bayes "
    "risk).",
  )
  flags.DEFINE_string(
    "draft_workdir", "", "Run that proposes tokens for speculative decoding."
  )
  flags.DEFINE_boolean(
    "prompt_lookup", False, "Speculative decoding with tokens from the text."
  )
  flags.DEFINE_integer("num_draft", 4, "Tokens proposed at a time.", 1)
  return _read_strategy


# Flag that selects a strategy → the flags that only apply to it.
_OPTIONS = dict(
  beam_size=(
    "length_penalty",
    "coverage_penalty",
    "num_groups",
    "diversity_penalty",
    "early_stopping",
  ),
  contrastive_k=("contrastive_alpha",),
  best_of=("rerank_per_token", "rerank_workdir", "mbr"),
  draft_workdir=("num_draft",),
  prompt_lookup=("num_draft",),
)


def _read_strategy() -> DecodingStrategy:
  """Return the strategy; raise a UsageError if flags contradict each other."""
  values = {
    name: flags.FLAGS[name].value
    for selector, options in _OPTIONS.items()
    for name in (selector, *options)
  }
  selected = [name for name in _OPTIONS if values[name]]
  if len(selected) > 1:
    raise UsageError(
      f"--{selected[0]} and --{selected[1]} are different decoding strategies; "
      "give one of them."
    )
  _check_options(selected)
  if not selected:
    return SAMPLE
  if selected[0] == "beam_size":
    return _beam(values)
  if selected[0] == "contrastive_k":
    return Contrastive(
      num_candidates=values["contrastive_k"], alpha=values["contrastive_alpha"]
    )
  if selected[0] == "best_of":
    return _best_of(values)
  if selected[0] == "draft_workdir":
    return Speculative(
      draft=_auxiliary_model("draft_workdir"), num_draft=values["num_draft"]
    )
  return PromptLookup(num_draft=values["num_draft"])


def _check_options(selected: list[str]) -> None:
  """Refuse flags of strategies that are not selected."""
  allowed = {name for each in selected for name in _OPTIONS[each]}
  for options in _OPTIONS.values():
    for name in options:
      if flags.FLAGS[name].present and name not in allowed:
        selectors = [f"--{k}" for k, v in _OPTIONS.items() if name in v]
        raise UsageError(
          f"--{name} needs {' or '.join(selectors)}; give it too, or omit "
          f"--{name}."
        )


def _beam(values: dict) -> Beam:
  options = dict(
    beam_size=values["beam_size"],
    length_penalty=values["length_penalty"],
    coverage_penalty=values["coverage_penalty"],
    early_stopping=_EARLY_STOPPING[values["early_stopping"]],
  )
  if values["num_groups"] == 1 and not values["diversity_penalty"]:
    return Beam(**options)
  if values["num_groups"] == 1:
    raise UsageError("--diversity_penalty needs --num_groups above 1.")
  return DiverseBeam(
    **options,
    num_groups=values["num_groups"],
    diversity_penalty=values["diversity_penalty"],
  )


def _best_of(values: dict) -> BestOf | MinimumBayesRisk:
  if not values["mbr"]:
    return BestOf(
      num_sequences=values["best_of"],
      reranker=_auxiliary_model("rerank_workdir"),
      per_token=values["rerank_per_token"],
    )
  for name in ("rerank_workdir", "rerank_per_token"):
    if flags.FLAGS[name].present:
      raise UsageError(
        f"--mbr and --{name} score texts differently; give one of them."
      )
  return MinimumBayesRisk(
    num_sequences=values["best_of"], utility=values["mbr"]
  )


def _auxiliary_model(flag: str) -> AuxiliaryModel | None:
  workdir = flags.FLAGS[flag].value
  if not workdir:
    return None
  return Run(workdir).auxiliary_model(f"--{flag}={workdir}")
