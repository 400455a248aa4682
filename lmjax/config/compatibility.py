# SPDX-License-Identifier: Apache-2.0
"""Configs as JSON, their differences, and what may differ on resume."""

import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import ConfigDict

from lmjax.config import defaults
from lmjax.config.model_keys import MODEL_KEYS
from lmjax.task_specs import TASK_SPECS

# Paths of data that may have moved when a run resumes: its content is compared
# by fingerprint instead.
MOVABLE_PATHS = ("data.path", "data.data_dir", "data.cache_dir", "model.arpa")
# Prefixes of the keys that may differ when a run resumes: how long it trains,
# what it reports and keeps, and where it runs. Any other key changes the model
# or its data.
MAY_CHANGE = (
  "train.",
  "checkpoint.keep_latest",
  "checkpoint.keep_best",
  "preview.",
  "parallel.",
  "data.num_threads",
  *MOVABLE_PATHS,
)


def to_json(config: ml_collections.ConfigDict) -> str:
  """Return a config as JSON with sorted keys."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
  """Parse the output of `to_json`."""
  return ConfigDict(json.loads(text))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Return the values of a config by dotted key, with tuples as lists.

  >>> flatten(ConfigDict({"model": {"sizes": (3, 4)}}))
  {"model.sizes": [3, 4]}
  """
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      flat[prefix + key] = json.loads(json.dumps(value))
  return flat


def difference(a: ConfigDict, b: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Return the keys whose values differ; an absent key has the value None."""
  a, b = flatten(a), flatten(b)
  return {
    key: (a.get(key), b.get(key))
    for key in sorted(a.keys() | b.keys())
    if a.get(key) != b.get(key)
  }


def difference_from_defaults(config: ConfigDict) -> dict[str, Any]:
  """Return the keys that an experiment changes, with their values."""
  base = defaults.get_config(config.model.name, config.task)
  return {key: new for key, (_, new) in difference(base, config).items()}


def incompatible(old: ConfigDict, new: ConfigDict) -> dict[str, tuple]:
  """Return the differences with which a run cannot resume."""
  return {
    key: values
    for key, values in difference(old, new).items()
    if not key.startswith(MAY_CHANGE)
  }


def with_new_keys(config: ConfigDict) -> ConfigDict:
  """Add keys that were declared after a config was stored, with defaults.

  A default leaves the behavior as it was before the key existed.
  """
  config = ConfigDict(config.to_dict())
  flat = flatten(config)
  if flat.get("task") not in TASK_SPECS or (
    flat.get("model.name") not in MODEL_KEYS
  ):
    return config  # `finalize` reports it
  current = defaults.get_config(config.model.name, config.task)
  for section, values in current.items():
    if isinstance(values, ConfigDict):
      stored = config[section].to_dict() if section in config else {}
      config[section] = {**values.to_dict(), **stored}
  return config
