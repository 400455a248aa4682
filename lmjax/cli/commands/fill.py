# SPDX-License-Identifier: Apache-2.0
"""Fill the blanks of a text.

python scripts/fill.py --workdir=runs/a --text='the ___ of the list'

A masked model fills each blank with one token, and --num_samples is the number
of candidates that are printed; other sampling flags do not apply to it.
"""

from absl import flags

from lmjax.cli.dataclass_flags import define_flags
from lmjax.generation.sampling_params import SamplingParams
from lmjax.run import Run

_RULE = "\n" + "─" * 72 + "\n"

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_TEXT = flags.DEFINE_string("text", None, "A text with blanks: ___.")
_SAMPLING = define_flags(
  SamplingParams, num_samples=5, num_tokens=100, temperature=0.8
)
flags.mark_flags_as_required(["workdir", "text"])


def main() -> None:
  """Print the candidates of each blank if blanks are tokens, and the texts."""
  infilled = Run(_WORKDIR.value, _CHECKPOINT.value).fill(
    _TEXT.value, _SAMPLING()
  )
  for number, candidates in enumerate(infilled.candidates, 1):
    print(f"blank {number}:")
    for text, probability in candidates:
      print(f"  {probability:6.1%}  {text!r}")
  print(_RULE.join(infilled.texts))
