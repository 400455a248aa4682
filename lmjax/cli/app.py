# SPDX-License-Identifier: Apache-2.0
"""Start and end of all commands."""

import os
import sys
from collections.abc import Callable

from absl import app, flags

from lmjax import platform
from lmjax.errors import UsageError, UserError
from lmjax.models.neural_cache import CacheOptions


def run(main: Callable[[], int | None], trains: bool = False) -> None:
  """Parse the flags, call `main`, and exit with what it returns.

  Args:
    main: what the command does.
    trains: whether it trains --config, possibly on virtual CPU devices.

  A user's mistake ends in one sentence on stderr and exit code 1, or 2 for a
  mistake on the command line.
  """
  app.define_help_flags()
  try:
    arguments = flags.FLAGS(sys.argv)
    if len(arguments) > 1:
      raise flags.Error(f"{arguments[1]!r} is not a flag; flags start with --")
    if "config" in flags.FLAGS:
      _ = flags.FLAGS.config.seed  # a file that did not load says so here
  except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
    _fail(_explain(error), 2)
  platform.start(platform.virtual_devices(flags.FLAGS.config) if trains else 1)
  try:
    exit_code = main()
  except UserError as error:
    _fail(str(error), error.exit_code)
  except BrokenPipeError:  # who reads has enough, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    exit_code = 0
  except OSError as error:  # a full disk, a folder that is a file, ...
    named = f"{error.filename}: {error.strerror}" if error.filename else error
    _fail(f"{named}.", 1)
  except KeyboardInterrupt:
    _fail("interrupted.", 130)
  sys.exit(exit_code or 0)


def prompt_or_source(
  prompt: flags.FlagHolder, source: flags.FlagHolder, reads_sources: bool
) -> str | None:
  """Return the prompt or source of a run; None if no prompt is given.

  Args:
    prompt: the flag.
    source: the flag.
    reads_sources: whether the run is a seq2seq run.

  Raises:
    UsageError: if the wrong flag is given, or no source.
  """
  wanted, other = (source, prompt) if reads_sources else (prompt, source)
  if other.value is not None:
    raise UsageError(
      f"this run takes no --{other.name}; give it a --{wanted.name}."
    )
  if reads_sources and wanted.value is None:
    raise UsageError("this is a seq2seq run; give --source.")
  return wanted.value


def define_cache_flags() -> Callable[[], CacheOptions | None]:
  """Define what commands call a neural cache; return what reads it."""
  size = flags.DEFINE_integer(
    "cache_size",
    0,
    "Positions in a neural cache, which no window ends; 0: none.",
  )
  theta = flags.DEFINE_float(
    "cache_theta", 0.3, "Weight of the similarity of positions."
  )
  share = flags.DEFINE_float("cache_lambda", 0.1, "Weight of the cache.")

  def read() -> CacheOptions | None:
    if not size.value:
      return None
    return CacheOptions(size.value, theta.value, share.value)

  return read


def define_int8_flags() -> Callable[[], dict[str, bool]]:
  """Define the int8 flags; return a function that reads them for Run."""
  weights = flags.DEFINE_bool(
    "int8_weights", False, "Round the parameters to eight bits."
  )
  cache = flags.DEFINE_bool(
    "int8_cache", False, "Store a Transformer's keys and values in int8."
  )
  return lambda: dict(int8_weights=weights.value, int8_cache=cache.value)


def _explain(error: Exception) -> str:
  """Make one line of what absl and ml_collections say."""
  if isinstance(error, (AttributeError, KeyError)):
    said = error.args[0] if error.args else error
    if isinstance(said, KeyError):  # in an AttributeError, of a nested key
      said = said.args[0]
    name, _, hint = str(said).partition("\n")
    return f"the config has no key {name}. {hint}".strip()
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  text = " ".join(lines)
  _, is_absent, name = text.partition("No such file or directory: ")
  if is_absent:
    return f"there is no {name}; give --config a file such as configs/ngram.py."
  return text


def _fail(sentence: str, exit_code: int) -> None:
  print(f"error: {sentence}", file=sys.stderr)
  sys.exit(exit_code)
