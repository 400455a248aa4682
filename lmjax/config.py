# SPDX-License-Identifier: Apache-2.0
"""Configs: checked and frozen, written and read as JSON, compared."""

import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from lmjax.data.batching import TRAIN_ORDERS
from lmjax.data.datasets import DATASETS
from lmjax.data.tokenizers import SPECIALS, TOKENIZERS
from lmjax.errors import UsageError
from lmjax.models import MODELS
from lmjax.optim import OPTIMIZERS, SCHEDULES
from lmjax.parallel import STRATEGIES
from lmjax.tasks import TASKS

CHOICES = {
  "task": TASKS,
  "model.name": MODELS,
  "data.source": DATASETS,
  "data.split_by": ("ratio", "name"),
  "data.tokenizer": TOKENIZERS,
  "data.order": TRAIN_ORDERS,
  "optim.name": OPTIMIZERS,
  "optim.schedule": SCHEDULES,
  "parallel.strategy": STRATEGIES,
  "model.dtype": ("float32", "bfloat16"),
  "model.param_dtype": ("float32", "bfloat16"),
}
POSITIVE = (
  "data.window",
  "data.batch_size",
  "optim.learning_rate",
  "train.num_steps",
  "train.num_microbatches",
  "train.log_every",
  "checkpoint.keep_latest",
  "parallel.fsdp",
)
# What may differ when a run goes on: how long it takes, what it shows and
# keeps, and where it runs. Everything else changes the model or its data.
MAY_CHANGE = ("train.", "checkpoint.", "sample.", "parallel.", "data.num_thr")


def finalize(config: ConfigDict) -> FrozenConfigDict:
  """Check a config and freeze it.

  Raises:
    UsageError: naming the key, its value and what is accepted.
  """
  flat = flatten(config)
  for key, choices in CHOICES.items():
    if flat[key] not in choices:
      raise UsageError(
        f"{key}={flat[key]} is not known; choose one of {', '.join(choices)}."
      )
  for key in POSITIVE:
    if flat[key] <= 0:
      raise UsageError(f"{key}={flat[key]} must be positive.")
  for key in ("data.valid_fraction", "data.test_fraction"):
    if not 0 <= flat[key] < 1:
      raise UsageError(f"{key}={flat[key]} must be at least 0 and below 1.")
  if flat["data.valid_fraction"] + flat["data.test_fraction"] >= 1:
    raise UsageError(
      "data.valid_fraction and data.test_fraction must add up to less than 1; "
      "nothing would be left to train on."
    )
  if flat["data.batch_size"] % flat["train.num_microbatches"]:
    raise UsageError(
      f"train.num_microbatches={flat['train.num_microbatches']} must divide "
      f"data.batch_size={flat['data.batch_size']}."
    )
  MODELS[config.model.name](config, vocab_size=len(SPECIALS))
  return FrozenConfigDict(config)


def to_json(config: ml_collections.ConfigDict) -> str:
  """Write a config as JSON with sorted keys."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
  """Read what `to_json` wrote."""
  return ConfigDict(json.loads(text))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """List the values of a config by dotted key, lists as JSON has them."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      listed = json.loads(json.dumps(value))
      flat[prefix + key] = listed
  return flat


def difference(a: ConfigDict, b: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Find the keys whose values differ; None stands for a key that is absent."""
  a, b = flatten(a), flatten(b)
  return {
    key: (a.get(key), b.get(key))
    for key in sorted(a.keys() | b.keys())
    if a.get(key) != b.get(key)
  }


def difference_from_base(config: ConfigDict) -> dict[str, Any]:
  """Find what an experiment changes."""
  defaults = base.get_config(model=config.model.name)
  return {key: new for key, (_, new) in difference(defaults, config).items()}


def incompatible(old: ConfigDict, new: ConfigDict) -> dict[str, tuple]:
  """Find the changes under which a run cannot go on."""
  return {
    key: values
    for key, values in difference(old, new).items()
    if not key.startswith(MAY_CHANGE)
  }
