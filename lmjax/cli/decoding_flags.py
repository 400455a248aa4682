# SPDX-License-Identifier: Apache-2.0
"""What commands call the ways to search for texts."""

from collections.abc import Callable

from absl import flags

from lmjax.generation.decoding_strategy import AuxiliaryModel, Search
from lmjax.generation.minimum_bayes_risk import UTILITIES
from lmjax.run import Run

_EARLY_STOPPING = {"true": True, "false": False, "never": "never"}


def define_search_flags() -> Callable[[], Search]:
  """Define the flags; return what reads them, and opens runs that help."""
  number, real, text = (
    flags.DEFINE_integer,
    flags.DEFINE_float,
    flags.DEFINE_string,
  )
  plain = dict(
    beam_size=number("beam_size", 0, "Texts searched for at once; 0: draw."),
    length_penalty=real("length_penalty", 0.0, "Above 0: longer texts."),
    coverage_penalty=real(
      "coverage_penalty", 0.0, "Above 0: texts that leave out less of a source."
    ),
    num_groups=number("num_groups", 1, "Groups of a diverse beam."),
    diversity_penalty=real(
      "diversity_penalty", 0.0, "Nats for a token of another group."
    ),
    contrastive_k=number(
      "contrastive_k", 0, "Candidates of contrastive search; 0: draw."
    ),
    contrastive_alpha=real(
      "contrastive_alpha", 0.6, "Weight of the degeneration penalty."
    ),
    best_of=number("best_of", 0, "Draw so many for each that is kept."),
    rerank_per_token=flags.DEFINE_boolean(
      "rerank_per_token", True, "Whether the mean over tokens counts."
    ),
    mbr=flags.DEFINE_enum(
      "mbr",
      "",
      ["", *UTILITIES],
      "Of --best_of keep the one that is most like the others.",
    ),
    prompt_lookup=flags.DEFINE_boolean(
      "prompt_lookup", False, "Speculate by what came last time."
    ),
    num_draft=number("num_draft", 4, "Tokens proposed at a time."),
  )
  early_stopping = flags.DEFINE_enum(
    "early_stopping",
    "true",
    list(_EARLY_STOPPING),
    "When a beam is done; never: when no better text can come.",
  )
  helpers = dict(
    reranker=text("rerank_workdir", "", "Run that chooses among --best_of."),
    draft=text("draft_workdir", "", "Run that proposes tokens."),
  )

  def help_of(flag: flags.FlagHolder) -> AuxiliaryModel | None:
    if not flag.value:
      return None
    return Run(flag.value).helper(f"--{flag.name}={flag.value}")

  def read() -> Search:
    return Search(
      **{name: flag.value for name, flag in plain.items()},
      **{name: help_of(flag) for name, flag in helpers.items()},
      early_stopping=_EARLY_STOPPING[early_stopping.value],
    )

  return read
