# SPDX-License-Identifier: Apache-2.0
"""Attribute a prediction to the tokens of a text.

python scripts/explain.py --workdir=runs/a --text='a lovely film'
python scripts/explain.py --workdir=runs/a --text='The list' --output=why

Of a classifier the label is explained, of a language model the next token. With
--output there are attention maps and a projection of embeddings too: PNG files,
and index.html with all of it.
"""

from pathlib import Path

from absl import flags

from lmjax.errors import check_positive
from lmjax.interpretability.projection import choose
from lmjax.interpretability.report import shown, write_report
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_TEXT = flags.DEFINE_string("text", None, "The text.")
_TARGET = flags.DEFINE_string(
  "target", "", "A label, or a token; empty: the most likely one."
)
_NUM_POINTS = flags.DEFINE_integer(
  "num_points", 64, "Points of the path that gradients are integrated over."
)
_OUTPUT = flags.DEFINE_string("output", None, "A folder for pictures.")
_NUMBER = flags.DEFINE_integer(
  "number", 100, "Number of most frequent tokens in the embedding plot."
)
_WORDS = flags.DEFINE_string("words", "", "Words to plot instead.")
flags.mark_flags_as_required(["workdir", "text"])


def main() -> None:
  """Print the attributions, and write what is to be looked at."""
  check_positive(num_points=_NUM_POINTS.value, number=_NUMBER.value)
  run = Run(_WORKDIR.value, _CHECKPOINT.value)
  explanation = run.explain(_TEXT.value, _TARGET.value, _NUM_POINTS.value)
  print(shown(explanation))
  if _OUTPUT.value is not None:
    tokenizer = run.experiment.corpus.text_tokenizer
    names = tokenizer.names()
    words, vectors = choose(
      *run.vectors,
      _NUMBER.value,
      _WORDS.value.split(),
      excluded=[names[token] for token in tokenizer.special_ids],
    )
    print(write_report(Path(_OUTPUT.value), explanation, words, vectors)[0])
