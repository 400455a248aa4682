# SPDX-License-Identifier: Apache-2.0
"""lmjax: neural language models and text generation in JAX and Flax.

>>> import lmjax
>>> from lmjax.config import defaults
>>> config = defaults.get_config(model="lstm")
>>> run = lmjax.train(config, "runs/a")
>>> print(run.generate("The ").text)

Importing lmjax imports nothing else: JAX is configured when a run is trained or
loaded, before the first array is created.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from lmjax.run import Run

__version__ = "0.1.0"


def load(workdir: str, checkpoint: str | int = "best", **options: Any) -> "Run":
  """Open a trained run.

  Args:
    workdir: the run directory.
    checkpoint: "best" by checkpoint.metric, "latest", or a step.
    **options: see lmjax.run.Run.

  Raises:
    lmjax.errors.UserError: if there is no such run or checkpoint.
  """
  from lmjax import platform

  platform.start()
  from lmjax.run import Run

  return Run(workdir, checkpoint, **options)


def train(config: "ConfigDict", workdir: str) -> "Run":
  """Train a run, or resume it, and open its latest checkpoint.

  Args:
    config: an experiment; see lmjax.config.defaults.
    workdir: the run directory.

  Raises:
    lmjax.errors.UserError: for a mistake in the config or the data.
    KeyboardInterrupt: if a signal stopped training after a checkpoint.
  """
  from lmjax import platform

  platform.start(platform.virtual_devices(config))
  from lmjax.run import Run
  from lmjax.training import loop

  if loop.train(config, workdir):
    raise KeyboardInterrupt("training was stopped; call train again to resume.")
  return Run(workdir, "latest")
