# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself at its start."""

import math

import jax

from lmjax.config.compatibility import difference_from_defaults
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.warm_start import describe
from lmjax.train_state import TrainState
from lmjax.tree import named_leaves
from lmjax.types import PyTree


def table(variables: PyTree) -> str:
  """List variables by path, shape, type and number, and their sum."""
  leaves = named_leaves(variables)
  sizes = {name: math.prod(leaf.shape) for name, leaf in leaves.items()}
  rows = [
    (name, " × ".join(map(str, leaf.shape)), leaf.dtype.name, sizes[name])
    for name, leaf in leaves.items()
  ]
  rows.append(("total", "", "", sum(sizes.values())))
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  return "\n".join(
    f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype:<{widths[2]}}"
    f"  {size:>13,}"
    for name, shape, dtype, size in rows
  )


def overview(
  experiment: Experiment, state: TrainState, num_devices: int
) -> str:
  """Describe config, corpus, devices and parameters."""
  changes = difference_from_defaults(experiment.config)
  config = "\n".join(f"  {key} = {value}" for key, value in changes.items())
  choices = experiment.model.resolve_auto(experiment.corpus.has_resets)
  chosen = ", ".join(f"{key} = {value}" for key, value in choices.items())
  others = state.collections and (
    f"other variables:\n{table(state.collections)}\n"
  )
  source = experiment.folder.load_corpus().get("init")
  warm_start = source and f"{describe(source)}\n"
  teacher = experiment.folder.load_corpus().get("teacher")
  distilled = teacher and (
    f"distilled from step {teacher['step']:,} of {teacher['workdir']}\n"
  )
  coverage = experiment.folder.load_corpus().get("pretrained")
  pretrained = coverage and (
    f"pretrained vectors: of {coverage['types']:.1%} of the vocabulary and "
    f"{coverage['tokens']:.1%} of the training text\n"
  )
  kind = jax.devices()[0].device_kind
  split = "valid" if experiment.config.train.eval_every else "train"
  return (
    f"different from the defaults:\n{config}\n"
    f"parameters:\n{table(state.params)}\n{others or ''}"
    f"{experiment.corpus.summary(split)}\n"
    f"{warm_start or ''}{distilled or ''}{pretrained or ''}"
    f"chosen: {chosen or 'nothing'}\n"
    f"devices: {num_devices} × {kind}"
  )
