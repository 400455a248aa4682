# SPDX-License-Identifier: Apache-2.0
"""Judge a run folder on a split; prints one JSON object.

python scripts/evaluate.py --workdir=runs/a --split=test
"""

import json

from absl import flags

from lmjax import command_line
from lmjax.data.splits import SPLITS
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run folder.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_SPLIT = flags.DEFINE_enum("split", "valid", SPLITS, "The split.")
_ORDER = flags.DEFINE_enum(
  "order",
  None,
  ["stateless", "stateful"],
  "Forget or keep the memory between windows; as in training if not given.",
)
flags.mark_flag_as_required("workdir")


def main() -> None:
  """Print the report."""
  overrides = {"data.order": _ORDER.value} if _ORDER.value else {}
  run = Run(_WORKDIR.value, _CHECKPOINT.value, overrides)
  report = run.evaluate(_SPLIT.value)
  order = run.experiment.config.data.order
  print(
    json.dumps(dict(split=_SPLIT.value, step=run.step, order=order, **report))
  )


if __name__ == "__main__":
  command_line.run(main)
