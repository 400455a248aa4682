# SPDX-License-Identifier: Apache-2.0
"""Score texts token by token.

python scripts/score.py --workdir=runs/a --text="To be, or not to be"
python scripts/score.py --workdir=runs/a --input=FILE --html=page.html
python scripts/score.py --workdir=runs/a --input=FILE --lines --output=jsonl
python scripts/score.py --workdir=runs/a --prompt="The list" --text=" is empty."
python scripts/score.py --workdir=runs/de-en --source="ein Hund" --text="a dog"

Surprisal is in bits; log-probabilities are in nats. At a terminal tokens are
colored by it; --html writes a page of them, with what attention looks at.
"""

import sys
from pathlib import Path

from absl import flags

from lmjax import strict_json
from lmjax.cli import app
from lmjax.cli.text_input import check_unicode, read_lines, read_text
from lmjax.errors import UsageError
from lmjax.interpretability.plots import MAX_LABELS, attention_map
from lmjax.interpretability.surprisal import (
  colored,
  legend,
  surprisal_page,
  table,
)
from lmjax.run import Run
from lmjax.scoring.language_model import Score

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_TEXT = flags.DEFINE_string("text", None, "The text.")
_INPUT = flags.DEFINE_string("input", None, "A file of it; -: standard input.")
_LINES = flags.DEFINE_boolean(
  "lines", False, "Each line of --input is a text of its own."
)
_PROMPT = flags.DEFINE_string(
  "prompt", None, "Text before each text, which is not scored."
)
_SOURCE = flags.DEFINE_string(
  "source", None, "Source text, for runs of task=seq2seq."
)
_CODE = flags.DEFINE_string("control_code", "", "Control code of the text.")
_OUTPUT = flags.DEFINE_enum(
  "output", "text", ["text", "jsonl"], "jsonl: an object a text."
)
_COLOR = flags.DEFINE_enum(
  "color",
  "auto",
  ["auto", "always", "never"],
  "Shade tokens; auto: at a terminal. Else there is a token a line.",
)
_HTML = flags.DEFINE_string("html", None, "A file to write a page to.")
_CACHE = app.define_cache_flags()
flags.mark_flag_as_required("workdir")


def given() -> list[str]:
  """Return the texts."""
  if (_TEXT.value is None) == (_INPUT.value is None):
    raise UsageError("give either --text or --input.")
  if _TEXT.value is not None:
    return [check_unicode(_TEXT.value)]
  read = read_lines if _LINES.value else lambda path: [read_text(path)]
  return read(_INPUT.value)


def print_text(run: Run, scores: list[Score]) -> None:
  """Print texts with the surprisals of their tokens."""
  shades = {"auto": sys.stdout.isatty(), "always": True, "never": False}
  write = colored if shades[_COLOR.value] else table
  for score in scores:
    print(write(run.scorer.spans(score)))
    print(score)
  if write is colored:
    print(legend())


def write_page(run: Run, scores: list[Score], prompt: str) -> None:
  """Write the page, with attention maps of the start of the first text."""
  maps = run.scorer.attention_maps(
    run.variables, scores[0].text, MAX_LABELS, _CODE.value, prompt
  )
  pictures = {}
  for name, (rows, columns, weights_HTS, is_whole) in maps.items():
    about = "" if is_whole else f", first {len(rows)} tokens"
    pictures[name + about] = attention_map(columns, weights_HTS, rows)
  texts = [(str(score), run.scorer.spans(score)) for score in scores]
  page = surprisal_page(texts, pictures)
  Path(_HTML.value).write_text(page, encoding="utf-8")


def main() -> None:
  """Print the scores, and write the page if it is wanted."""
  texts = given()
  run = Run(_WORKDIR.value, _CHECKPOINT.value, cache=_CACHE())
  reads_sources = run.experiment.spec.reads_sources
  prompt = app.prompt_or_source(_PROMPT, _SOURCE, reads_sources)
  prompt = check_unicode(prompt or "")
  scores = run.score(texts, _CODE.value, prompt)
  if _OUTPUT.value == "jsonl":
    for score in scores:
      print(strict_json.dumps(score.report(), ensure_ascii=False))
  else:
    print_text(run, scores)
  if _HTML.value is not None:
    write_page(run, scores, prompt)
