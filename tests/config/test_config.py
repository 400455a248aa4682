# SPDX-License-Identifier: Apache-2.0
import contextlib
import math
import re
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from lmjax import platform
from lmjax.config import compatibility, defaults
from lmjax.config import finalize as config_lib
from lmjax.config.files import load_neighbor
from lmjax.config.model_keys import DEFAULT_TASKS, MODEL_KEYS
from lmjax.data.records.tables import FILE_KINDS, TABLES
from lmjax.data.records.tag_schemes import SCHEMES
from lmjax.data.sources.text_sources import JSONLines
from lmjax.data.sources.tfds_writer import write_dataset
from lmjax.data.text.batching import TRAIN_ORDERS
from lmjax.data.text.datasets import DATASETS
from lmjax.data.tokenizers import TOKENIZERS
from lmjax.data.word_vectors import FORMATS
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.layers.characters import CHARACTER_ENCODERS
from lmjax.layers.feedforward import FEED_FORWARDS
from lmjax.layers.initializers import INITIALIZERS
from lmjax.layers.layer_stack import LAYER_EXECUTIONS
from lmjax.layers.norms import NORMS
from lmjax.layers.pooling import POOLINGS
from lmjax.layers.recurrent import IMPLEMENTATIONS
from lmjax.layers.transformer_block import NORM_POSITIONS
from lmjax.models import MODELS
from lmjax.models.heads.text_matcher import (
  COMPARISONS,
  ENCODERS,
  NEGATIVES,
  OUTPUTS,
)
from lmjax.models.ngram import SMOOTHINGS
from lmjax.models.recurrent import RNN_CELLS
from lmjax.models.recurrent_decoder import ATTENTIONS
from lmjax.models.sharding_rules import SHARDING_RULES
from lmjax.models.transformer_stack import POSITIONS, QK_NORMS
from lmjax.ops.cells import CELLS
from lmjax.optim.optimizers import OPTIMIZERS
from lmjax.optim.schedules import SCHEDULES, make_schedule
from lmjax.parallel import STRATEGIES
from lmjax.task_specs import TASK_SPECS, spec_of
from lmjax.task_specs.build import build_model
from lmjax.tasks.classification import CLASS_WEIGHTS, CRITERIA
from lmjax.training import loop
from tests.tracing import trace, trace_preview

CONFIG_DIR = Path(__file__).parent.parent.parent / "configs"
CONFIGS = sorted(path.stem for path in CONFIG_DIR.glob("*.py"))


def load(name):
  return load_neighbor(str(CONFIG_DIR / "x.py"), f"{name}.py").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_valid_without_its_dataset(name):
  config = load(name)
  config_lib.finalize(config)
  built_in = (
    "python_docs",
    "python_source",
    *(spec.source for spec in TASK_SPECS.values()),
  )
  assert config.data.source in built_in and not config.data.path
  assert config.is_locked


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_can_be_trained(name, tmp_path, cache_dir):
  """As it is, but in shapes alone."""
  config = load(name)
  config.data.cache_dir = cache_dir
  config = config_lib.finalize(config)
  trace(Experiment(config, RunDir(tmp_path / "run")))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_runs(name, tmp_path, cache_dir):
  config = load(name)
  config.data.cache_dir = cache_dir
  if "num_buckets" in config.data:  # one shape compiles sooner
    config.data.num_buckets, config.data.seq_len = 1, 16
    config.data.batch_size, config.data.train_fraction = 8, 0.1
    config.preview.num_rows = 1
  config.train.num_steps = 2
  config.train.eval_batches = 1
  if "num_tokens" in config.preview:
    config.preview.num_tokens = 2
  if "seq2seq" in config:
    config.seq2seq.max_target_length = 2
  config.parallel.num_devices = 1
  if "num_layers" in config.model:  # compiles sooner
    config.model.num_layers = min(config.model.num_layers, 2)
  assert loop.train(config, tmp_path / "run") == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_json_preserves_a_config(name):
  config = load(name)
  back = compatibility.from_json(compatibility.to_json(config))
  assert compatibility.difference(config, back) == {}
  assert compatibility.incompatible(config, back) == {}


def test_stored_configs_get_defaults_of_new_keys():
  config = load("char_lstm")
  older = config.to_dict()
  del older["model"]["residual"], older["optim"]["ema_decay"], older["init"]
  newer = compatibility.with_new_keys(ConfigDict(older))
  assert compatibility.difference(config, newer) == {}


def test_choices_match_registries():
  """Choices are literal, since declarations must not import registries."""
  choices = {}
  for model in MODEL_KEYS:
    for task in TASK_SPECS:
      declared = defaults.declared_keys(model, task)
      for key, value in config_lib._flat_keys(declared):
        choices.setdefault(key, set()).update(value.choices)
  registries = {
    "task": TASK_SPECS,
    "data.source": {**DATASETS, **TABLES},
    "data.tokenizer": TOKENIZERS,
    "data.order": TRAIN_ORDERS,
    "optim.name": OPTIMIZERS,
    "optim.schedule": SCHEDULES,
    "parallel.strategy": STRATEGIES,
    "pretrained.format": {"auto": None, **FORMATS},
    "model.positions": POSITIONS,
    "model.qk_norm": QK_NORMS,
    "model.norm_position": NORM_POSITIONS,
    "model.norm": (*NORMS, "none"),
    "model.feed_forward": (*FEED_FORWARDS, "none"),
    "model.initializer": INITIALIZERS,
    "model.recurrent_initializer": INITIALIZERS,
    "model.scan_layers": LAYER_EXECUTIONS,
    "model.cell": CELLS,
    "model.activation": RNN_CELLS,
    "model.attention": ATTENTIONS,
    "model.implementation": IMPLEMENTATIONS,
    "model.smoothing": SMOOTHINGS,
    "classification.criterion": CRITERIA,
    "classification.class_weights": CLASS_WEIGHTS,
    "classification.pooling": POOLINGS,
    "tagging.scheme": SCHEMES,
    "tagging.character_encoder": CHARACTER_ENCODERS,
    "matching.loss": OUTPUTS,
    "matching.encoders": ENCODERS,
    "matching.second_tokenizer": ("", *TOKENIZERS),
    "matching.pooling": POOLINGS,
    "matching.comparison": COMPARISONS,
    "matching.negatives": NEGATIVES,
    "seq2seq.target_tokenizer": ("", *TOKENIZERS),
  }
  for key, registry in registries.items():
    assert choices[key] == set(registry), key
  literal = {
    "data.split_by",
    "data.malformed",
    "classification.labels",
    "model.dtype",
    "model.param_dtype",
  }
  enumerated = {key for key, names in choices.items() if names}
  assert enumerated == registries.keys() | literal
  assert MODEL_KEYS.keys() == MODELS.keys() == SHARDING_RULES.keys()


def test_every_task_spec_is_complete():
  for name, spec in TASK_SPECS.items():
    assert spec.name == name and callable(spec.preview())
    assert spec.has_records == (spec.examples is None)
    assert spec.has_records == (spec.renderer is not None)
    for loader in (spec.sampler, spec.scorer, spec.infiller, spec.explainer):
      assert loader is None or callable(loader())


def test_paths_are_made_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = load("char_lstm")
  config.data.source, config.data.path = "text", "books/*.txt"
  final = config_lib.finalize(config)
  assert final.data.path == str(tmp_path / "books/*.txt")
  assert config.data.path == "books/*.txt"  # the caller's own is left alone
  config.data.path = "/elsewhere/*.txt"
  assert compatibility.incompatible(final, config) == {}
  config.pretrained.vectors = "glove.txt"
  final = config_lib.finalize(config)
  assert final.pretrained.vectors == str(tmp_path / "glove.txt")


def all_declared():
  """List (model, task, key, declaration), each key once."""
  seen = set()
  for model in MODEL_KEYS:
    usual = defaults.get_config(model).task
    declared = defaults.declared_keys(model, usual)
    for key, value in config_lib._flat_keys(declared):
      if (key, value) not in seen:
        seen.add((key, value))
        yield model, key, value


def beyond(key):
  """List values just outside the valid range of a declared key."""
  if key.choices:
    return ["no_such_name"]
  if isinstance(key.default, bool) or not isinstance(key.default, int | float):
    return []
  kind = type(key.default)
  values = []
  if key.minimum > -math.inf:
    values.append(kind(key.minimum) - kind(1))
  for bound in (key.maximum, key.below):
    if bound < math.inf:
      values.append(kind(bound + 1) if kind is int else bound + 0.5)
  return values


def test_checks_both_bounds_of_every_key():
  for model, key, declared in all_declared():
    for value in beyond(declared):
      config = defaults.get_config(model)
      config.update_from_flattened_dict({key: value})
      with pytest.raises(UsageError, match=re.escape(key)):
        config_lib.finalize(config)


def test_differences_are_named_by_dotted_key():
  a, b = load("char_lstm"), load("char_lstm")
  b.model.width, b.train.num_steps = 7, 9
  assert set(compatibility.difference(a, b)) == {
    "model.width",
    "train.num_steps",
  }
  assert set(compatibility.incompatible(a, b)) == {"model.width"}
  assert compatibility.difference_from_defaults(b)["model.width"] == 7


@pytest.mark.parametrize(
  ("model", "key", "value", "message"),
  [
    ("lstm", "data.source", "nope", "data.source=nope is not known; choose"),
    ("lstm", "optim.name", "adma", "optim.name=adma .* adamw, adagrad, sgd"),
    ("lstm", "model.name", "transformer", "not those of model.name=transf"),
    ("lstm", "seed", -1, "seed=-1 must be at least 0"),
    ("lstm", "model.width", 0, "model.width=0 must be at least 1"),
    ("lstm", "model.dropout", 1.5, "model.dropout=1.5 must be below 1"),
    ("lstm", "data.seq_len", 0, "data.seq_len=0 must be at least 1"),
    ("lstm", "data.path", "x", "data.path=.*x is not read by .*python_docs"),
    ("lstm", "data.vocab_size", 3, "above 4, the number of special tokens"),
    ("lstm", "data.valid_fraction", 1.5, "valid_fraction=1.5 must be below 1"),
    ("lstm", "data.valid_fraction", 0.97, "their sum must be below 1"),
    ("lstm", "optim.clip_norm", -1.0, "must be at least 0"),
    ("lstm", "optim.no_decay", "(", "is not a valid regular expression"),
    ("lstm", "optim.freeze", "(", "optim.freeze=. is not a valid regular expr"),
    (
      "lstm",
      "optim.lr_multipliers",
      (("(", 0.5),),
      "lr_multipliers.0.=. is not a valid regular",
    ),
    (
      "lstm",
      "optim.lr_multipliers",
      ("up",),
      "optim.lr_multipliers=.* must be pairs",
    ),
    ("lstm", "optim.lr_multipliers", (("up", -0.5),), "a factor of at least 0"),
    ("lstm", "optim.lr_multipliers", (("up", "x"),), "a factor of at least 0"),
    (
      "lstm",
      "task",
      "cbow",
      "fit model.name=lstm, which supports language_m",
    ),
    (
      "word_vectors",
      "task",
      "language_modeling",
      "supports skip_gram or cbow or gl",
    ),
    ("word_vectors", "data.order", "stateful", "choose stateless"),
    (
      "encoder",
      "task",
      "language_modeling",
      "supports masked_lm or classification or tagg",
    ),
    ("encoder", "data.order", "stateful", "not supported for task=masked_lm"),
    ("encoder_decoder", "data.seq_len", 1, "=1 has no room for text between"),
    ("lstm", "task", "prefix_lm", "supports language_modeling or fill_in_t"),
    ("ngram", "task", "prefix_lm", "supports language_modeling; change one"),
    (
      "ngram",
      "task",
      "fill_in_the_middle",
      "supports language_modeling; change one",
    ),
    ("ngram", "model.add_k", 0.0, "model.add_k=0.0 must be at least 1e-09"),
    ("ngram", "model.order", 0, "model.order=0 must be at least 1"),
    ("ngram", "model.order", 8, "model.order=8 must be at most 7"),
    ("lstm", "objective.mask_rate", 0.0, "must be at least 0.001"),
    ("word_vectors", "word_vectors.context_size", 0, "must be at least 1"),
    ("lstm", "parallel.rules", ("x",), "must be pairs"),
    ("lstm", "parallel.num_devices", -1, "must be at least 0"),
    ("lstm", "train.num_microbatches", 3, "must divide data.batch_size=32"),
    (
      "lstm",
      "model.residual",
      True,
      "as wide as its input: .*99",
    ),
    ("lstm", "model.implementation", "cudnn", "needs an NVIDIA GPU"),
    ("lstm", "model.weight_drop", 1.0, "model.weight_drop=1.0 must be below 1"),
    ("gru", "model.tie_embeddings", True, "must equal model.width=256"),
    ("rnn", "model.activation", "gelu", "gelu is not known; .* tanh, relu"),
    ("transformer", "model.num_heads", 7, "7 must divide model.width=128"),
    ("transformer", "model.num_heads", 0, "0 must divide model.width=128"),
    ("transformer", "model.num_kv_heads", 3, "divide model.num_heads=4"),
    ("transformer", "model.positions", "absolute", "rotary"),
    ("transformer", "model.num_experts", 1, "_token=2 must be between 1 and"),
    ("transformer", "model.norm_position", "both", "choose one of pre, post"),
    ("transformer_xl", "model.width", 7, "must be even: half of the features"),
    ("encoder_decoder", "data.order", "stateful", "stateless"),
    (
      "transformer",
      "model.max_context",
      4,
      "must not exceed model.max_context=4",
    ),
    ("transformer", "data.order", "stateful", "one of rotary"),
    ("min_gru", "model.feed_forward", "x", "=x is not known; .* geglu.* none"),
    ("min_lstm", "model.norm", "x", "=x is not known; .* rms.* none"),
    ("rg_lru", "model.num_heads", 999, "must divide model.recurrent_width=160"),
    ("rg_lru", "model.num_heads", 0, "must divide model.recurrent_width=160"),
    ("xlstm", "model.blocks", "mx", "expected letters m .mLSTM. and s"),
    ("xlstm", "model.block_width", 7, "7 must divide model.inner_width=384"),
    (
      "recurrent_encoder",
      "data.source",
      "text",
      "text is not known; .*csv, jsonl, .*tfds",
    ),
    ("recurrent_encoder", "data.malformed", "x", "choose one of error, skip"),
    ("recurrent_encoder", "data.name", "x", "x is not read by .* to tfds"),
    ("recurrent_encoder", "data.train_fraction", 0.0, "at least 1e-09"),
    ("gated_convolution", "model.conv_size", 0, "must be at least 1"),
    ("gated_convolution", "model.tie_embeddings", True, "must equal model.wid"),
  ],
)
def test_error_names_key_value_and_valid_values(model, key, value, message):
  config = defaults.get_config(model=model)
  if "embedding_width" in config.model:
    config.model.embedding_width = 99
  if model in ("lstm", "gru", "rnn"):
    config.model.num_layers = 1
  if model == "transformer":
    config.model.positions = "learned"
  config.update_from_flattened_dict({key: value})
  with pytest.raises(UsageError, match=message):
    config_lib.finalize(config)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_task_pair_works_or_is_rejected(model):
  usual = defaults.get_config(model)
  kinds = build_model(usual, vocab_size=9).kinds
  config_lib.finalize(usual)
  for task, spec in TASK_SPECS.items():
    config = defaults.get_config(model, task)
    if spec.model_kind in kinds:
      config_lib.finalize(config)
    else:
      wrong = f"task={task} does not fit model.name={model}, "
      with pytest.raises(UsageError, match=wrong):
        config_lib.finalize(config)


class Recorder(ConfigDict):
  """A config that remembers which of its keys were read, by dotted name.

  Going over all items, as writing it to a file does, counts as no reading.
  """

  def __init__(self, config, prefix="", reads=None):
    reads = set() if reads is None else reads
    object.__setattr__(self, "reads", reads)
    object.__setattr__(self, "prefix", prefix)
    super().__init__()
    for key, value in config.items():
      if isinstance(value, ConfigDict):
        value = Recorder(value, f"{prefix}{key}.", reads)
      super().__setattr__(key, value)
    reads.clear()

  def __getattribute__(self, name):
    if not name.startswith("_") and name in object.__getattribute__(
      self, "_fields"
    ):
      self.reads.add(self.prefix + name)
    return super().__getattribute__(name)

  def __getitem__(self, name):
    self.reads.add(self.prefix + name)
    return self._fields[name]

  def items(self):
    return list(self._fields.items())

  def to_dict(self):
    return {
      key: value.to_dict() if isinstance(value, Recorder) else value
      for key, value in self._fields.items()
    }


def test_every_key_is_read(tiny_config, text_folder, tmp_path, monkeypatch):
  """Over all models, sources, optimizers and schedules, every key is read."""
  lines = tmp_path / "lines.jsonl"
  lines.write_text("".join(f'{{"text": "line {n}"}}\n' for n in range(99)))
  write_dataset(
    "lines", tmp_path, {"train": JSONLines([lines], "text", tmp_path)}, 99
  )
  text = {"data.path": str(text_folder), "data.tokenizer": "word"}
  settings = [
    {"data.source": "text", "data.split_by": "name", **text},
    {"data.source": "text", "data.split_by": "ratio", **text},
    {"data.source": "jsonl", "data.path": str(lines)},
    {"data.source": "tfds", "data.name": "lines", "data.data_dir": tmp_path},
    *({"optim.schedule": name} for name in SCHEDULES),
    *({"optim.name": name} for name in OPTIMIZERS),
    {"optim.plateau_factor": 0.5, "optim.ema_decay": 0.5},
    {"optim.nt_asgd_every": 5},
  ]
  more = {
    "lstm": [{"init.workdir": tmp_path / "lstm"}, *settings],
    "word_vectors": [{"task": "glove"}],
    "transformer": [
      {"model.num_experts": 2},
      {"task": "fill_in_the_middle", "model.positions": "rotary"},
      {"task": "control_codes", "data.source": "text", **text},
    ],
  }
  reads, append_keys = set(), set()
  for model in MODELS:
    if spec_of(defaults.get_config(model)).has_records:
      continue
    config = tiny_config(model)
    keys = compatibility.flatten(config)
    append_keys |= {key for key in keys if not key.startswith("distill.")}
    recorder = Recorder(config)
    if model == "lstm":  # all of the driver once, a step and a sample long ...
      recorder.train.num_steps = recorder.train.preview_every = 1
      monkeypatch.setattr(loop, "finalize", lambda _, config=recorder: config)
      platform.virtual_devices(recorder)
      loop.train(None, tmp_path / model)
    else:
      trace(Experiment(recorder, RunDir(tmp_path / model)))
    reads |= recorder.reads
    # ... and what else there is to choose, built only.
    for number, changes in enumerate(more.get(model, [])):
      changes = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in changes.items()
      }
      recorder = Recorder(tiny_config(model, **changes))
      folder = RunDir(tmp_path / f"{model}{number}")
      experiment = Experiment(recorder, folder)
      experiment.describe_corpus()
      make_schedule(recorder.optim, 9)(3)
      jax.eval_shape(experiment.make_state)
      if number == len(more[model]) - 1:
        experiment.corpus.train_batches()[0]
      reads |= recorder.reads
  assert append_keys - reads == set()


def models_of(task: str) -> list[str]:
  """Name the models that usually learn a task, or else one that can."""
  usual = [model for model in MODELS if DEFAULT_TASKS.get(model) == task]
  able = (
    model
    for model in DEFAULT_TASKS
    if TASK_SPECS[task].model_kind
    in build_model(defaults.get_config(model, task), vocab_size=9).kinds
  )
  return usual or [next(able)]


def test_every_key_of_record_tasks_is_read(tiny_config, tmp_path, monkeypatch):
  """Over all of them and all tables, every key of their own is read."""
  rows = "".join(f"a text of {n},{n % 2}\n" for n in range(99))
  (tmp_path / "train.csv").write_text("text,label\n" + rows)
  csv = {"data.source": "csv", "data.path": str(tmp_path / "train.csv")}
  reads, append_keys = set(), set()
  # All of the driver once, a step and a sample long ...
  changes = {
    "train.num_steps": 1,
    "train.preview_every": 1,
    "data.header": True,
  }
  recorder = Recorder(tiny_config("recurrent_encoder", **csv, **changes))
  monkeypatch.setattr(loop, "finalize", lambda _: recorder)
  platform.virtual_devices(recorder)
  loop.train(None, tmp_path / "run")
  reads |= recorder.reads
  # ... learning from that run ...
  changes = {"data.header": True, "distill.workdir": str(tmp_path / "run")}
  recorder = Recorder(tiny_config("recurrent_encoder", **csv, **changes))
  taught = Experiment(recorder, RunDir(tmp_path / "taught"))
  taught.describe_corpus()
  jax.eval_shape(taught.make_state)
  reads |= recorder.reads
  append_keys |= {f"distill.{key}" for key in recorder.to_dict()["distill"]}
  # ... every task and model built only ...
  for task in [n for n, s in TASK_SPECS.items() if s.has_records]:
    for model in models_of(task):
      changes = csv if TASK_SPECS[task].source in FILE_KINDS else {}
      changes = changes | {"task": task, "data.header": bool(changes)}
      recorder = Recorder(tiny_config(model, **changes))
      folder = RunDir(tmp_path / f"{task} {model}")
      experiment = Experiment(recorder, folder)
      experiment.describe_corpus()
      jax.eval_shape(experiment.make_state)
      trace_preview(experiment)
      reads |= recorder.reads
      own = ("data.", "model.", "preview.", f"{task}.")
      keys = compatibility.flatten(recorder.to_dict())
      append_keys |= {key for key in keys if key.startswith(own)}
  # ... and every table opened.
  for kind in FILE_KINDS.values():
    (tmp_path / f"train{kind.suffixes[0]}").touch()
  for table in TABLES.values():
    for split_by in ("name", "ratio"):
      changes = {"data.path": str(tmp_path), "data.split_by": split_by}
      recorder = Recorder(tiny_config("recurrent_encoder", **changes))
      with contextlib.suppress(UserError):  # there is no such TFDS dataset
        table(recorder.data, tmp_path)
      reads |= recorder.reads
  assert append_keys - reads == set()
