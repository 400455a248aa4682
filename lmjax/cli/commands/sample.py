# SPDX-License-Identifier: Apache-2.0
"""Generate text from a run.

python scripts/sample.py --workdir=runs/a --prompt="The " --num_tokens=300
python scripts/sample.py --workdir=runs/a --prompt_file=FILE --output=jsonl
python scripts/sample.py --workdir=runs/a --interactive --stop=.
python scripts/sample.py --workdir=runs/de-en --source="ein Hund"

Text is printed to stdout, and the number of tokens per second to stderr.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags

from lmjax import strict_json
from lmjax.cli import app
from lmjax.cli.dataclass_flags import define_flags
from lmjax.cli.decoding_flags import define_strategy_flags
from lmjax.cli.repl import converse, line_reader, show
from lmjax.cli.text_input import check_unicode, read_lines
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.constraints.constraints import Constraints
from lmjax.generation.decoding_strategies import (
  SAMPLE,
  Beam,
  DecodingStrategy,
)
from lmjax.generation.results import GenerationStats
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import Completion
from lmjax.guidance.guidance import Guidance
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_PROMPT = flags.DEFINE_string(
  "prompt", None, "Text to continue; by default a newline."
)
_SOURCE = flags.DEFINE_string(
  "source", None, "Source text, for runs of task=seq2seq."
)
_PROMPT_FILE = flags.DEFINE_string(
  "prompt_file", None, "File with one prompt or source per line; - for stdin."
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", 64, "Maximum number of rows of a batch.", lower_bound=1
)
_SAMPLING = define_flags(SamplingParams, num_tokens=300, temperature=0.8)
_MAX_SECONDS = flags.DEFINE_float(
  "max_seconds",
  None,
  "Seconds after which the texts of a batch are not continued.",
  lower_bound=0.0,
)
_OUTPUT = flags.DEFINE_enum(
  "output",
  "text",
  ["text", "jsonl"],
  "jsonl prints one object per sample, with tokens, their log-probabilities in "
  "nats, and the score of a search.",
)
_STREAM = flags.DEFINE_boolean(
  "stream", False, "Print text while it is generated."
)
_INTERACTIVE = flags.DEFINE_boolean(
  "interactive", False, "Continue each line of stdin."
)
_CACHE = app.define_cache_flags()
_INT8 = app.define_int8_flags()
_CONSTRAINTS = define_flags(Constraints)
_GUIDANCE = define_flags(Guidance)
_STRATEGY = define_strategy_flags()
flags.mark_flag_as_required("workdir")

_RULE = "─" * 72 + "\n"


def check_flags() -> None:
  """Raise a UsageError if flags contradict each other."""
  given = [
    flag.name
    for flag in (_PROMPT, _SOURCE, _PROMPT_FILE, _INTERACTIVE)
    if flag.value not in (None, False)
  ]
  if len(given) > 1:
    raise UsageError(f"give either --{given[0]} or --{given[1]}.")
  streams = _STREAM.value or _INTERACTIVE.value
  if streams and (flags.FLAGS.num_samples != 1 or _PROMPT_FILE.value):
    raise UsageError(
      "--stream and --interactive print one text at a time; give one prompt "
      "and --num_samples=1, or neither flag."
    )
  if streams and _OUTPUT.value != "text":
    raise UsageError(
      "--stream and --interactive print text; give --output=text, or neither "
      "flag."
    )


def sampling_params(strategy: DecodingStrategy) -> SamplingParams:
  """Return the sampling parameters.

  The default temperature sharpens a distribution that is sampled from; a beam
  search maximizes the probabilities of the model itself.
  """
  params = _SAMPLING()
  if isinstance(strategy, Beam) and not flags.FLAGS["temperature"].present:
    params = dataclasses.replace(params, temperature=1.0)
  return params


def read_prompts(reads_sources: bool) -> list[str]:
  """Return the prompts or sources."""
  if _PROMPT_FILE.value:
    return read_lines(_PROMPT_FILE.value)
  prompt = app.prompt_or_source(_PROMPT, _SOURCE, reads_sources)
  return [check_unicode("\n" if prompt is None else prompt)]


def format_json(role: str, prompt: str, completion: Completion) -> str:
  """Return a completion as a JSON object."""
  fields = completion._asdict()
  if completion.score is None:
    del fields["score"]
  return strict_json.dumps({role: prompt, **fields}, ensure_ascii=False)


def with_prompt(
  prompt: str, pieces: Iterable[str], tokenizer: Tokenizer
) -> Iterator[str]:
  """Yield a prompt and the text after it.

  The prompt is only yielded with the first text, since mistakes are reported
  until then.
  """
  pieces = iter(pieces)
  first = next(pieces, "")
  yield prompt
  for new in itertools.chain([first], pieces):
    yield tokenizer.separator(prompt, new) + new
    prompt = prompt if not new else ""


def stream(
  run: Run, prompt: str, params: SamplingParams, **options: Any
) -> Iterator[str]:
  """Yield the text after a prompt; print the statistics at its end."""
  for delta in run.generate(prompt, params, stream=True, **options):
    yield delta.text
    if delta.completion and not _INTERACTIVE.value:
      print(delta.stats, file=sys.stderr)


def print_samples(
  run: Run, prompts: Sequence[str], params: SamplingParams, **options: Any
) -> None:
  """Print samples batch by batch, with their prompts."""
  sampler, stats = run.sampler, GenerationStats()
  echoes = not sampler.reads_sources
  separator = sampler.tokenizer.separator
  # Groups of prompts, so that samples are printed as early as possible. They do
  # not depend on the other prompts of their batch.
  strategy = options["strategy"]
  rows = params.num_samples * strategy.rows_per_sequence
  size = max(_BATCH_SIZE.value // rows, 1)
  number = 0
  for start in range(0, len(prompts), size):
    group = prompts[start : start + size]
    result = run.generate(
      group, params, batch_size=_BATCH_SIZE.value, **options
    )
    stats = stats.plus(result.stats)
    repeated = (prompt for prompt in group for _ in range(params.num_samples))
    for prompt, made in zip(repeated, result.completions, strict=True):
      if _OUTPUT.value == "jsonl":
        line = format_json("prompt" if echoes else "source", prompt, made)
        print(line, flush=True)
      else:
        before = (prompt + separator(prompt, made.text)) * echoes
        print(_RULE * (number > 0) + before + made.text, flush=True)
      number += 1
  print(stats, file=sys.stderr)


def main() -> None:
  """Print samples, and how fast they were generated."""
  check_flags()
  strategy = _STRATEGY()
  if _MAX_SECONDS.value is not None and strategy is not SAMPLE:
    raise UsageError(
      "--max_seconds does not apply to --beam_size and other decoding "
      "strategies, which generate whole texts; omit one of them."
    )
  params = sampling_params(strategy)
  options = dict(
    strategy=strategy,
    constraints=_CONSTRAINTS(),
    guidance=_GUIDANCE(),
    max_seconds=_MAX_SECONDS.value,
  )
  run = Run(_WORKDIR.value, _CHECKPOINT.value, cache=_CACHE(), **_INT8())
  sampler = run.sampler
  if _INTERACTIVE.value:
    seeds = itertools.count(params.seed)
    converse(
      line_reader(),
      lambda line: stream(
        run, line, dataclasses.replace(params, seed=next(seeds)), **options
      ),
    )
    return
  prompts = read_prompts(sampler.reads_sources)
  if not _STREAM.value:
    print_samples(run, prompts, params, **options)
    return
  (prompt,) = prompts
  pieces = stream(run, prompt, params, **options)
  if not sampler.reads_sources:
    pieces = with_prompt(prompt, pieces, sampler.tokenizer)
  show(pieces)
