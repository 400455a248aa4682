# SPDX-License-Identifier: Apache-2.0
"""Train a config, or resume its run.

python train.py --config=configs/char_lstm.py --workdir=runs/a
"""

from absl import flags
from ml_collections import config_flags

from lmjax.training import loop

_CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="The experiment; change keys by --config.KEY=VALUE."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
  """Run the driver."""
  return loop.train(_CONFIG.value, _WORKDIR.value)
