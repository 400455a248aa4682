# SPDX-License-Identifier: Apache-2.0
"""Configs: checked and frozen, written and read as JSON, compared."""

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import ConfigDict, FrozenConfigDict

from lmjax.config import defaults
from lmjax.config.task_checks import check_task
from lmjax.data.records.record_corpus import MALFORMED
from lmjax.data.records.schemas import SCHEMAS
from lmjax.data.records.tables import FILE_KINDS, TABLES
from lmjax.data.records.tag_schemes import SCHEMES
from lmjax.data.text.batching import TRAIN_ORDERS
from lmjax.data.text.datasets import DATASETS
from lmjax.data.tokenizers import SPECIALS, TOKENIZERS
from lmjax.errors import UsageError
from lmjax.models import MODELS, build_model
from lmjax.optim.optimizers import OPTIMIZERS, SCHEDULES
from lmjax.parallel import STRATEGIES
from lmjax.tasks import KINDS, TASKS
from lmjax.tasks.classification import CLASS_WEIGHTS, CRITERIA

CHOICES = {
  "task": TASKS,
  "model.name": MODELS,
  "data.split_by": ("ratio", "name"),
  "data.malformed": MALFORMED,
  "data.tokenizer": TOKENIZERS,
  "data.order": TRAIN_ORDERS,
  "tagging.scheme": SCHEMES,
  "matching.second_tokenizer": ("", *TOKENIZERS),
  "seq2seq.target_tokenizer": ("", *TOKENIZERS),
  "classification.labels": ("one", "many"),
  "classification.criterion": CRITERIA,
  "classification.class_weights": CLASS_WEIGHTS,
  "optim.name": OPTIMIZERS,
  "optim.schedule": SCHEDULES,
  "parallel.strategy": STRATEGIES,
  "model.dtype": ("float32", "bfloat16"),
  "model.param_dtype": ("float32", "bfloat16"),
}
# Key → the lowest and the highest value that it may have; numbers that are not
# here must be at least 0.
POSITIVE, SHARE = (1, math.inf), (0, 1 - 1e-9)
RANGES = {
  "model.width": POSITIVE,
  "model.num_layers": POSITIVE,
  "model.dropout": SHARE,
  "classification.dropout": SHARE,
  "model.embedding_dropout": SHARE,
  "model.input_dropout": SHARE,
  "model.hidden_dropout": SHARE,
  "model.output_dropout": SHARE,
  "model.weight_drop": SHARE,
  "model.scheduled_sampling": (0, 1),
  "seq2seq.beam_size": POSITIVE,
  "seq2seq.num_return_sequences": POSITIVE,
  "model.experts_per_token": POSITIVE,
  "model.add_k": (1e-9, math.inf),
  "model.memory_length": POSITIVE,
  "model.num_buckets": POSITIVE,
  "data.valid_fraction": SHARE,
  "data.test_fraction": SHARE,
  "data.seq_len": POSITIVE,
  "word_vectors.context_size": POSITIVE,
  "word_vectors.num_sampled": POSITIVE,
  "word_vectors.x_max": (1e-9, math.inf),
  "data.batch_size": POSITIVE,
  "data.num_buckets": POSITIVE,
  "matching.features_width": POSITIVE,
  "matching.dropout": SHARE,
  "matching.min_score": (-math.inf, math.inf),
  "matching.max_score": (-math.inf, math.inf),
  "matching.temperature": (1e-9, math.inf),
  "data.train_fraction": (1e-9, 1),
  "tagging.dropout": SHARE,
  "tagging.character_width": POSITIVE,
  "tagging.character_embedding_width": POSITIVE,
  "objective.mask_rate": (1e-3, 0.999),
  "objective.span_length": POSITIVE,
  "objective.fim_rate": (0, 1),
  "objective.spm_rate": (0, 1),
  "loss.label_smoothing": SHARE,
  "distill.weight": (0, 1),
  "distill.temperature": (1e-9, math.inf),
  "optim.decay_fraction": (0, 1),
  "optim.final_fraction": (0, 1),
  "optim.plateau_factor": (1e-9, 1),
  "optim.plateau_patience": POSITIVE,
  "optim.plateau_every": POSITIVE,
  "optim.b1": SHARE,
  "optim.b2": SHARE,
  "optim.momentum": SHARE,
  "optim.ema_decay": SHARE,
  "optim.nt_asgd_patience": POSITIVE,
  "train.num_steps": POSITIVE,
  "train.num_microbatches": POSITIVE,
  "train.log_every": POSITIVE,
  "checkpoint.keep_latest": POSITIVE,
  "parallel.fsdp": POSITIVE,
}
# Paths, kept absolute so that a run can be used from any folder; all but the
# last three may lie elsewhere when a run goes on.
MOVABLE_PATHS = ("data.path", "data.data_dir", "data.cache_dir", "model.arpa")
PATHS = (
  *MOVABLE_PATHS,
  "pretrained.vectors",
  "init.workdir",
  "distill.workdir",
)
# The sources that read what cannot be ignored in silence.
READ_BY = {
  "data.path": ("text", "parallel", *FILE_KINDS),
  "data.name": ("tfds",),
  "data.data_dir": ("tfds",),
  "data.header": ("tsv", "csv"),
}
# What may differ when a run goes on: how long it takes, what it shows and
# keeps, where it runs, and where its text lies, whose content is checked
# by itself. Everything else changes the model or its data.
MAY_CHANGE = (
  "train.",
  "checkpoint.keep_latest",
  "checkpoint.keep_best",
  "sample.",
  "parallel.",
  "data.num_threads",
  *MOVABLE_PATHS,
)


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
  sources = TABLES if config.task in SCHEMAS else DATASETS
  for key, choices in {**CHOICES, "data.source": sources}.items():
    if key in flat and flat[key] not in choices:
      raise UsageError(
        f"{key}={flat[key]} is not known; choose one of "
        f"{', '.join(filter(None, choices))}."
      )
  expected = flatten(defaults.get_config(config.model.name, config.task))
  if flat.keys() != expected.keys():
    odd = min(flat.keys() ^ expected.keys())
    raise UsageError(
      f"the keys of this config are not those of model.name="
      f"{config.model.name} and task={config.task} ({odd}); begin it with "
      f"defaults.get_config(model={config.model.name!r}, task={config.task!r})."
    )
  for key, value in flat.items():
    low, high = RANGES.get(key, (0, math.inf))
    if isinstance(value, int | float) and not low <= value <= high:
      highest = "below 1" if (low, high) == SHARE else f"at most {high:g}"
      limit = f"at least {low:g}" if value < low else highest
      raise UsageError(f"{key}={value} must be {limit}.")
  for key, readers in READ_BY.items():
    if flat.get(key) and config.data.source not in readers:
      there = [reader for reader in readers if reader in sources]
      raise UsageError(
        f"{key}={flat[key]} is not read by data.source={config.data.source}; "
        f"set data.source to {' or '.join(there)}."
      )
  _check_together(config)
  _check_task(config)
  check_task(config)
  return FrozenConfigDict(config)


def _check_together(config: ConfigDict) -> None:
  """Check what one value alone does not show."""
  data, train = config.data, config.train
  if data.valid_fraction + data.test_fraction >= 1:
    raise UsageError(
      "data.valid_fraction and data.test_fraction must add up to less than 1; "
      "nothing would be left to train on."
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
      f"{optim.nt_asgd_every} average the parameters both; set one to 0."
    )
  averages = optim.ema_decay or optim.nt_asgd_every
  if averages and "norm" in config.model and config.model.norm == "batch":
    raise UsageError(
      "model.norm=batch has running statistics of the parameters in training, "
      "not of their average; set optim.ema_decay and optim.nt_asgd_every to 0, "
      "or choose another norm."
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
      f"optim.lr_multipliers={optim.lr_multipliers} must be pairs of a regular expression and a "
      "factor of at least 0."
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
      raise UsageError(f"{key}={pattern} is no regular expression.") from None


def _check_task(config: ConfigDict) -> None:
  """Check the task, the model, and that they go together."""
  name, task = config.model.name, config.task
  # What is for running text alone cannot be built without its settings.
  usual = defaults.get_config(name) if task in SCHEMAS else config
  kinds = build_model(usual, vocab_size=len(SPECIALS)).kinds
  if KINDS[task] not in kinds:
    tasks = [task for task, kind in KINDS.items() if kind in kinds]
    raise UsageError(
      f"task={task} does not go with model.name={name}, which learns by "
      f"{' or '.join(tasks)}; change one of them."
    )
  build_model(config, vocab_size=len(SPECIALS))


def to_json(config: ml_collections.ConfigDict) -> str:
  """Write a config as JSON with sorted keys."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
  """Read what `to_json` wrote."""
  return ConfigDict(json.loads(text))


def with_new_keys(config: ConfigDict) -> ConfigDict:
  """Give keys that are younger than a stored config their defaults.

  A default leaves everything as it was before there was the key.
  """
  config = ConfigDict(config.to_dict())
  flat = flatten(config)
  if "task" not in flat or flat.get("model.name") not in defaults.MODELS:
    return config  # `finalize` says what is wrong
  current = defaults.get_config(config.model.name, config.task)
  for section, values in current.items():
    if isinstance(values, ConfigDict):
      stored = config[section].to_dict() if section in config else {}
      config[section] = {**values.to_dict(), **stored}
  return config


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
  base = defaults.get_config(config.model.name, config.task)
  return {key: new for key, (_, new) in difference(base, config).items()}


def incompatible(old: ConfigDict, new: ConfigDict) -> dict[str, tuple]:
  """Find the changes under which a run cannot go on."""
  return {
    key: values
    for key, values in difference(old, new).items()
    if not key.startswith(MAY_CHANGE)
  }
