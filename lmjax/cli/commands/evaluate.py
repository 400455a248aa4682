# SPDX-License-Identifier: Apache-2.0
"""Evaluate a run on a split; prints one JSON object.

python scripts/evaluate.py --workdir=runs/a --split=test --cache_size=2000
"""

import dataclasses

from absl import flags

from lmjax import strict_json
from lmjax.cli import app
from lmjax.data.sources.splits import SPLITS
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_SPLIT = flags.DEFINE_enum("split", "valid", SPLITS, "The split.")
_ORDER = flags.DEFINE_enum(
  "order",
  None,
  ["stateless", "stateful"],
  "Forget or keep the memory between windows of running text; as in training "
  "if not given.",
)
_CACHE = app.define_cache_flags()
_INT8 = app.define_int8_flags()
flags.mark_flag_as_required("workdir")


def main() -> None:
  """Print the report."""
  overrides = {"data.order": _ORDER.value} if _ORDER.value else {}
  cache = _CACHE()
  run = Run(_WORKDIR.value, _CHECKPOINT.value, overrides, cache, **_INT8())
  report = run.evaluate(_SPLIT.value)
  about = dict(split=_SPLIT.value, step=run.step)
  data = run.experiment.config.data
  if "order" in data:
    about["order"] = data.order
  if cache:
    about["cache"] = dataclasses.asdict(cache)
  about |= {name: True for name, wanted in _INT8().items() if wanted}
  print(strict_json.dumps(about | report))
