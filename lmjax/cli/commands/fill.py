# SPDX-License-Identifier: Apache-2.0
"""Fill the blanks of a text.

python scripts/fill.py --workdir=runs/a --text='the ___ of the list'
"""

from absl import flags

from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_TEXT = flags.DEFINE_string("text", None, "A text with blanks: ___.")
_NUMBER = flags.DEFINE_integer(
  "number",
  5,
  "Candidates of a blank; texts, where a blank may be of any length.",
)
_NUM_TOKENS = flags.DEFINE_integer("num_tokens", 100, "Tokens in all blanks.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "0: most likely only.")
_TOP_K = flags.DEFINE_integer("top_k", 0, "Choose among the k best; 0: all.")
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Choose among probability p.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed, the same text.")
flags.mark_flags_as_required(["workdir", "text"])


def main() -> None:
  """Print the candidates of each blank, if it is a token, and the text."""
  run = Run(_WORKDIR.value, _CHECKPOINT.value)
  filled = run.fill(
    _TEXT.value,
    number=_NUMBER.value,
    num_tokens=_NUM_TOKENS.value,
    temperature=_TEMPERATURE.value,
    top_k=_TOP_K.value,
    top_p=_TOP_P.value,
    seed=_SEED.value,
  )
  for number, candidates in enumerate(filled.candidates, 1):
    print(f"blank {number}:")
    for text, probability in candidates:
      print(f"  {probability:6.1%}  {text!r}")
  line = "\n" + "─" * 72 + "\n"
  print(line.join(filled.texts))
