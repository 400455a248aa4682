# SPDX-License-Identifier: Apache-2.0
"""Plot the validation loss of several runs against training tokens.

python scripts/plot_losses.py --output=losses.svg runs/lstm runs/transformer
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")  # no display is needed
import matplotlib.pyplot as plt  # noqa: E402


def read_losses(run: Path) -> tuple[list[float], list[float]]:
  """Return tokens seen and validation losses of a run, in nats per token."""
  tokens, found = 0.0, []
  for line in (run / "metrics.jsonl").read_text().splitlines():
    record = json.loads(line)
    if record["split"] == "train":
      tokens = record["tokens"]
    elif record["split"] == "valid":
      found.append((tokens, record["loss"]))
  return tuple(zip(*found, strict=True))


def main() -> None:
  """Write the plot."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("runs", nargs="+", type=Path, help="run directories")
  parser.add_argument("--output", required=True, help="file to write (.svg)")
  arguments = parser.parse_args()
  figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
  for run in arguments.runs:
    try:
      tokens, losses = read_losses(run)
    except (OSError, ValueError) as error:
      sys.exit(f"error: {run} has no validation losses ({error}).")
    axes.plot(tokens, losses, marker=".", label=run.name)
  axes.set_xlabel("training tokens")
  axes.set_ylabel("validation loss (nats/character)")
  axes.grid(alpha=0.3)
  axes.legend(frameon=False)
  # Without a date the same curves give the same file.
  figure.savefig(arguments.output, metadata={"Date": None})


if __name__ == "__main__":
  main()
