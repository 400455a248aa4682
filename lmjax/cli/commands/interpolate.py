# SPDX-License-Identifier: Apache-2.0
"""Interpolate language models linearly; weights are fitted on validation.

python scripts/interpolate.py --workdirs=runs/lstm,runs/ngram --split=test

All must have the same vocabulary and data. Each is evaluated as its own config
says, with its own sequence length, stateful or stateless.
"""

from collections.abc import Iterable

import numpy as np
from absl import flags

from lmjax import strict_json
from lmjax.data.sources.splits import SPLITS
from lmjax.errors import UsageError
from lmjax.metrics.sums import perplexity
from lmjax.run import Run
from lmjax.scoring.interpolation import fit_weights, interpolate

_WORKDIRS = flags.DEFINE_list("workdirs", None, "Two or more run directories.")
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "The split to evaluate.")
flags.mark_flag_as_required("workdirs")


def main() -> None:
  """Print the weights, and the perplexity of each run and of the mixture."""
  workdirs = list(dict.fromkeys(_WORKDIRS.value))
  if len(workdirs) < 2:
    raise UsageError(
      "--workdirs needs two run directories or more, with commas."
    )
  runs = [Run(workdir) for workdir in workdirs]
  splits = dict.fromkeys(("valid", _SPLIT.value))
  for run in runs[1:]:
    _check_alike(runs[0], run, splits)
  log_probs = {
    split: np.stack([run.log_probs(split) for run in runs]) for split in splits
  }
  weights = fit_weights(log_probs["valid"])
  judged = log_probs[_SPLIT.value]
  nats = -judged.mean(axis=1, dtype=np.float64)
  each = map(perplexity, nats.tolist())
  print(
    strict_json.dumps(
      dict(
        split=_SPLIT.value,
        tokens=judged.shape[1],
        weights=dict(zip(workdirs, weights.tolist(), strict=True)),
        perplexity=dict(zip(workdirs, each, strict=True)),
        mixture=perplexity(-float(interpolate(judged, weights).mean())),
      )
    )
  )


def _check_alike(first: Run, other: Run, splits: Iterable[str]) -> None:
  """See that two runs score the same tokens of the same text.

  Raises:
    UsageError: if they do not.
  """
  folders = [run.experiment.folder.path for run in (other, first)]
  if other.tokenizer.fingerprint != first.tokenizer.fingerprint:
    raise UsageError(
      f"{folders[0]} has another vocabulary than {folders[1]}; interpolate "
      "runs of one vocabulary."
    )
  for split in splits:
    ours, theirs = (r.experiment.corpus.stream(split) for r in (other, first))
    if ours.folder.name != theirs.folder.name:  # a digest
      raise UsageError(
        f"{folders[0]} has another text in the split {split} than "
        f"{folders[1]}, or another data.append_eos; interpolate runs of one "
        "text."
      )
