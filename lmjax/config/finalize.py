# SPDX-License-Identifier: Apache-2.0
"""Validation of configs."""

import math
import os
import re
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict, FrozenConfigDict

from lmjax.config import defaults
from lmjax.config.compatibility import MOVABLE_PATHS, flatten
from lmjax.config.model_keys import MODEL_KEYS
from lmjax.config.task_checks import check_task
from lmjax.data.records.tables import FILE_KINDS
from lmjax.data.tokenizers import SPECIALS
from lmjax.errors import UsageError
from lmjax.models import MODELS
from lmjax.task_specs import TASK_SPECS, spec_of
from lmjax.task_specs.build import build_model
from lmjax.task_specs.key import Key

# Paths are made absolute, so that a run can be used from any directory.
PATHS = (
  *MOVABLE_PATHS,
  "pretrained.vectors",
  "init.workdir",
  "distill.workdir",
)
# Key → the data sources that read it; set for any other source, it would be
# ignored silently.
READ_BY = {
  "data.path": ("text", "parallel", *FILE_KINDS),
  "data.name": ("tfds",),
  "data.data_dir": ("tfds",),
  "data.header": ("tsv", "csv"),
}


def finalize(config: ConfigDict) -> FrozenConfigDict:
  """Check a config, make its paths absolute, and freeze it.

  Raises:
    UsageError: naming the key, its value and what is accepted.
  """
  config = ConfigDict(config.to_dict())
  flat = flatten(config)
  for key in PATHS:
    if flat.get(key):
      flat[key] = os.path.abspath(os.path.expanduser(flat[key]))
      config.update_from_flattened_dict({key: flat[key]})
  for key, known in {"task": TASK_SPECS, "model.name": MODEL_KEYS}.items():
    if flat[key] not in known:
      raise UsageError(
        f"{key}={flat[key]} is not known; choose one of {', '.join(known)}."
      )
  declared = dict(
    _flat_keys(defaults.declared_keys(flat["model.name"], flat["task"]))
  )
  if flat.keys() != declared.keys():
    odd = min(flat.keys() ^ declared.keys())
    raise UsageError(
      f"the keys of this config are not those of model.name="
      f"{config.model.name} and task={config.task} ({odd}); start it with "
      f"defaults.get_config(model={config.model.name!r}, task={config.task!r})."
    )
  for key, value in flat.items():
    problem = declared[key].problem(value)
    if problem:
      raise UsageError(f"{key}={value} {problem}.")
  for key, readers in READ_BY.items():
    if flat.get(key) and config.data.source not in readers:
      choices = declared["data.source"].choices
      names = [reader for reader in readers if reader in choices]
      raise UsageError(
        f"{key}={flat[key]} is not read by data.source={config.data.source}; "
        f"set data.source to {' or '.join(names)}."
      )
  _check_together(config)
  _check_model(config)
  check_task(config)
  return FrozenConfigDict(config)


def _flat_keys(keys: Mapping, prefix: str = "") -> Iterator[tuple[str, Key]]:
  """List declarations by dotted key."""
  for name, key in keys.items():
    if isinstance(key, Key):
      yield prefix + name, key
    else:
      yield from _flat_keys(key, f"{prefix}{name}.")


def _check_together(config: ConfigDict) -> None:
  """Check combinations of values."""
  data, train = config.data, config.train
  if data.valid_fraction + data.test_fraction >= 1:
    raise UsageError(
      f"data.valid_fraction={data.valid_fraction} and data.test_fraction="
      f"{data.test_fraction} leave nothing to train on; their sum must be "
      "below 1."
    )
  if 0 < data.vocab_size <= len(SPECIALS):
    raise UsageError(
      f"data.vocab_size={data.vocab_size} must be 0 for no limit or above "
      f"{len(SPECIALS)}, the number of special tokens."
    )
  if data.batch_size % train.num_microbatches:
    raise UsageError(
      f"train.num_microbatches={train.num_microbatches} must divide "
      f"data.batch_size={data.batch_size}."
    )
  optim = config.optim
  if optim.ema_decay and optim.nt_asgd_every:
    raise UsageError(
      f"optim.ema_decay={optim.ema_decay} and optim.nt_asgd_every="
      f"{optim.nt_asgd_every} are two averages of the parameters; set one to 0."
    )
  averages = optim.ema_decay or optim.nt_asgd_every
  if averages and "norm" in config.model and config.model.norm == "batch":
    raise UsageError(
      "model.norm=batch has running statistics of the trained parameters, not "
      "of their average; set optim.ema_decay=0 and optim.nt_asgd_every=0, or "
      "choose another norm."
    )
  patterns = {
    "optim.no_decay": optim.no_decay,
    "optim.freeze": optim.freeze,
    "init.parameters": config.init.parameters,
  }
  try:
    for number, (pattern, factor) in enumerate(optim.lr_multipliers):
      patterns[f"optim.lr_multipliers[{number}]"] = pattern
      if not 0.0 <= factor < math.inf:
        raise ValueError
  except (TypeError, ValueError):
    raise UsageError(
      f"optim.lr_multipliers={optim.lr_multipliers} must be pairs of a regular "
      "expression and a factor of at least 0."
    ) from None
  try:
    for number, (pattern, _) in enumerate(config.parallel.rules):
      patterns[f"parallel.rules[{number}]"] = pattern
  except (TypeError, ValueError):
    raise UsageError(
      f"parallel.rules={config.parallel.rules} must be pairs of a regular "
      "expression and the mesh axes of the last dimensions."
    ) from None
  for key, pattern in patterns.items():
    try:
      re.compile(pattern)
    except (re.error, TypeError):
      raise UsageError(
        f"{key}={pattern} is not a valid regular expression."
      ) from None


def _check_model(config: ConfigDict) -> None:
  """Check that the model can be built, and that it can learn the task."""
  name, spec = config.model.name, spec_of(config)
  # A model of running text cannot be built from the keys of a records task.
  usual = defaults.get_config(name) if spec.has_records else config
  kinds = MODELS[name](usual, vocab_size=len(SPECIALS)).kinds
  if spec.model_kind not in kinds:
    tasks = [n for n, s in TASK_SPECS.items() if s.model_kind in kinds]
    raise UsageError(
      f"task={spec.name} does not fit model.name={name}, which supports "
      f"{' or '.join(tasks)}; change one of them."
    )
  build_model(config, vocab_size=len(SPECIALS))
