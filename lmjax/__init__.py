# SPDX-License-Identifier: Apache-2.0
"""lmjax: neural language models and text generation in JAX and Flax.

>>> import lmjax
>>> run = lmjax.load("runs/a")
>>> run.generate("The ", num_tokens=100)
"""


def load(workdir: str, checkpoint: str | int = "best", **options):
  """Open a trained run; see lmjax.run.Run."""
  from lmjax import platform

  platform.start()
  from lmjax.run import Run

  return Run(workdir, checkpoint, **options)
