# SPDX-License-Identifier: Apache-2.0
"""Mix runs linearly, with weights chosen on the split valid.

python scripts/interpolate.py --workdirs=runs/lstm,runs/ngram --split=test

All must have the same vocabulary. They read the text as the first one is
configured to, with memory kept from window to window.
"""

import json

import numpy as np
from absl import flags

from lmjax import command_line
from lmjax.analysis.interpolation import fit_weights, interpolate
from lmjax.data.splits import SPLITS
from lmjax.errors import UsageError
from lmjax.run import Run

_WORKDIRS = flags.DEFINE_list("workdirs", None, "Two run folders or more.")
_SPLIT = flags.DEFINE_enum("split", "valid", SPLITS, "The split to judge on.")
flags.mark_flag_as_required("workdirs")


def main() -> None:
  """Print the weights, and the perplexity of each run and of the mixture."""
  if len(_WORKDIRS.value) < 2:
    raise UsageError("--workdirs needs two run folders or more, with commas.")
  first = Run(_WORKDIRS.value[0], overrides={"data.order": "stateful"})
  data = first.experiment.config.data
  reading = {f"data.{k}": data[k] for k in ("order", "window", "batch_size")}
  runs = [first]
  for workdir in _WORKDIRS.value[1:]:
    runs.append(Run(workdir, overrides=reading))
    if runs[-1].tokenizer.fingerprint != first.tokenizer.fingerprint:
      raise UsageError(
        f"{workdir} has another vocabulary than {_WORKDIRS.value[0]}; "
        "interpolate runs of one vocabulary."
      )
  weights = fit_weights(np.stack([run.log_probs("valid") for run in runs]))
  log_probs = np.stack([run.log_probs(_SPLIT.value) for run in runs])
  perplexity = np.exp(-log_probs.mean(axis=1)).tolist()
  mixture = float(np.exp(-interpolate(log_probs, weights).mean()))
  print(
    json.dumps(
      dict(
        split=_SPLIT.value,
        tokens=log_probs.shape[1],
        weights=dict(zip(_WORKDIRS.value, weights.tolist(), strict=True)),
        perplexity=dict(zip(_WORKDIRS.value, perplexity, strict=True)),
        mixture=mixture,
      )
    )
  )


if __name__ == "__main__":
  command_line.run(main)
