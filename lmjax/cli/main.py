# SPDX-License-Identifier: Apache-2.0
"""The console command `lmjax`; it imports only the selected command."""

import difflib
import importlib
import sys

import lmjax

# Command → what it does. Listing the commands must not import them: JAX alone
# takes a second.
COMMANDS = {
  "train": "Train a config, or resume its run.",
  "sample": "Generate text from a run.",
  "evaluate": "Evaluate a run on a split.",
  "score": "Score texts token by token.",
  "predict": "Predict records with a run.",
  "serve": "Serve a run over HTTP with the OpenAI completions API.",
  "fill": "Fill the blanks of a text.",
  "retrieve": "Search texts with a query.",
  "explain": "Attribute a prediction to the tokens of a text.",
  "embed": "Show or export word vectors.",
  "interpolate": "Interpolate language models linearly.",
  "export_arpa": "Write an n-gram model as an ARPA file.",
  "prepare_data": "Convert text or JSONL into a TFDS dataset.",
}


def main() -> None:
  """Run the command that the first argument names."""
  name = sys.argv[1] if len(sys.argv) > 1 else "--help"
  if name in ("-h", "--help", "help"):
    print(
      "usage: lmjax COMMAND [--flags]   (lmjax COMMAND --help lists flags)\n"
    )
    for command, description in COMMANDS.items():
      print(f"  {command:13} {description}")
    return
  if name == "--version":
    print(f"lmjax {lmjax.__version__}")
    return
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else "see lmjax --help."
    print(f"error: {name!r} is not a command; {hint}", file=sys.stderr)
    sys.exit(2)
  # The flags of the command are parsed as those of a program of its own.
  sys.argv = [f"lmjax {name}", *sys.argv[2:]]
  run_command(name)


def run_command(name: str) -> None:
  """Import a command, parse its flags, and run it."""
  from lmjax.cli import app

  command = importlib.import_module(f"lmjax.cli.commands.{name}")
  app.run(command.main, trains=name == "train")
