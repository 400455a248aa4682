# SPDX-License-Identifier: Apache-2.0
"""Generate text from a run.

python scripts/sample.py --workdir=runs/a --prompt="The " --num_tokens=300
python scripts/sample.py --workdir=runs/a --prompt_file=FILE --output=jsonl
python scripts/sample.py --workdir=runs/a --interactive --stop=.
python scripts/sample.py --workdir=runs/de-en --source="ein Hund"

Texts go to stdout; how many tokens a second were read and drawn, to stderr.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence

from absl import flags

from lmjax import strict_json
from lmjax.cli import app
from lmjax.cli.dataclass_flags import define_flags
from lmjax.cli.decoding_flags import define_search_flags
from lmjax.cli.repl import converse, line_reader, show
from lmjax.cli.text_input import check_unicode, read_lines
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.decoding_strategy import Search
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import Continuation
from lmjax.guidance.options import Control
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_PROMPT = flags.DEFINE_string("prompt", None, "Text to go on from: a new line.")
_SOURCE = flags.DEFINE_string(
  "source", None, "Text to write another for, by a run of task=seq2seq."
)
_PROMPT_FILE = flags.DEFINE_string(
  "prompt_file", None, "A prompt or a source a line; -: standard input."
)
_CODE = flags.DEFINE_string("control_code", "", "Control code of the text.")
_NUM_TOKENS = flags.DEFINE_integer("num_tokens", 300, "Tokens a sample.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Samples of each prompt.")
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size",
  64,
  "Texts drawn at once, those of a beam or to choose among counted.",
)
_SAMPLING = define_flags(SamplingParams, temperature=0.8)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed, the same text.")
_STOP = flags.DEFINE_multi_string(
  "stop", [], "Text before which a sample ends. May be repeated."
)
_MAX_SECONDS = flags.DEFINE_float(
  "max_seconds",
  None,
  "After which no more is drawn in a batch.",
  lower_bound=0.0,
)
_OUTPUT = flags.DEFINE_enum(
  "output",
  "text",
  ["text", "jsonl"],
  "jsonl: an object a sample, with tokens and log-probabilities in nats, and "
  "the score by which a search found it.",
)
_STREAM = flags.DEFINE_boolean("stream", False, "Print text as it is made.")
_INTERACTIVE = flags.DEFINE_boolean(
  "interactive", False, "Go on from each line that is typed."
)
_CACHE = app.define_cache_flags()
_INT8 = app.define_int8_flags()
_CONTROL = define_flags(Control)
_SEARCH = define_search_flags()
flags.mark_flag_as_required("workdir")

_LINE = "─" * 72 + "\n"


def check_flags() -> None:
  """See that what was asked for goes together."""
  given = [
    flag.name
    for flag in (_PROMPT, _SOURCE, _PROMPT_FILE, _INTERACTIVE)
    if flag.value not in (None, False)
  ]
  if len(given) > 1:
    raise UsageError(f"give either --{given[0]} or --{given[1]}.")
  as_made = _STREAM.value or _INTERACTIVE.value
  if as_made and (_NUM_SAMPLES.value != 1 or _PROMPT_FILE.value):
    raise UsageError(
      "--stream and --interactive print one text at a time; give one prompt "
      "and --num_samples=1, or neither flag."
    )
  if as_made and _OUTPUT.value != "text":
    raise UsageError(
      "--stream and --interactive print text; give --output=text, or neither "
      "flag."
    )


def sampling(search: Search) -> SamplingParams:
  """Return what tokens are chosen by; a beam looks at the model's own scores.

  The default temperature sharpens them, which is for drawing.
  """
  chosen = _SAMPLING()
  if search.beam_size and not flags.FLAGS["temperature"].present:
    chosen = dataclasses.replace(chosen, temperature=1.0)
  return chosen


def asked(reads_sources: bool) -> list[str]:
  """Return the prompts, or the sources."""
  if _PROMPT_FILE.value:
    return read_lines(_PROMPT_FILE.value)
  prompt = app.prompt_or_source(_PROMPT, _SOURCE, reads_sources)
  return [check_unicode("\n" if prompt is None else prompt)]


def lines(
  texts: Iterable[tuple[str, Continuation]], role: str
) -> Iterator[str]:
  """Write an object a text."""
  for asked, drawn in texts:
    told = {k: v for k, v in drawn._asdict().items() if v is not None}
    yield strict_json.dumps({role: asked, **told}, ensure_ascii=False)


def behind(
  prompt: str, made: Iterable[str], tokenizer: Tokenizer
) -> Iterator[str]:
  """Write a prompt, and behind it a text as it is made.

  Nothing is written before there is some text, for till then mistakes are told.
  """
  made = iter(made)
  first = next(made, "")
  yield prompt
  for new in itertools.chain([first], made):
    yield tokenizer.gap(prompt, new) + new
    prompt = prompt if not new else ""


def draw(run: Run, prompts: Sequence[str], **settings) -> None:
  """Print samples as they are made, prompts included."""
  number, echoes = _NUM_SAMPLES.value, not run.sampler.reads_sources
  drawn = run.continue_each(
    prompts, num_samples=number, batch_size=_BATCH_SIZE.value, **settings
  )
  each = (prompt for prompt in prompts for _ in range(number))
  texts = zip(each, drawn, strict=True)
  if _OUTPUT.value == "jsonl":
    for line in lines(texts, "prompt" if echoes else "source"):
      print(line, flush=True)
    return
  gap = run.sampler.tokenizer.gap
  for index, (prompt, made) in enumerate(texts):
    before = (prompt + gap(prompt, made.text)) * echoes
    print(_LINE * (index > 0) + before + made.text, flush=True)


def main() -> None:
  """Print samples, and how fast they came."""
  check_flags()
  search = _SEARCH()
  if _MAX_SECONDS.value is not None and not search.draws:
    raise UsageError(
      "--max_seconds ends texts that are drawn one by one; leave it out where "
      "they are searched for."
    )
  settings = dict(
    sampling=sampling(search),
    num_tokens=_NUM_TOKENS.value,
    stop_strings=_STOP.value,
    max_seconds=_MAX_SECONDS.value,
    control_code=_CODE.value,
  )
  run = Run(
    _WORKDIR.value,
    _CHECKPOINT.value,
    cache=_CACHE(),
    control=_CONTROL(),
    search=search,
    **_INT8(),
  )
  sampler = run.sampler
  if _INTERACTIVE.value:
    seeds = itertools.count(_SEED.value)
    converse(
      line_reader(),
      lambda line: run.stream_text(line, seed=next(seeds), **settings),
    )
    return
  prompts, settings["seed"] = asked(sampler.reads_sources), _SEED.value
  if _STREAM.value:
    (prompt,) = prompts
    made = run.stream_text(prompt, **settings)
    if not sampler.reads_sources:
      made = behind(prompt, made, sampler.tokenizer)
    show(made)
  else:
    draw(run, prompts, **settings)
  print(run.timing, file=sys.stderr)
