# SPDX-License-Identifier: Apache-2.0
"""Every config key with its default, valid range and choices.

An experiment starts with `config = defaults.get_config(model="lstm")`, or with
`task="classification"` too, and changes what it is about. Assigning a key that
is not declared is an error. The keys of model families are declared in
`model_keys`, those of one task in its TaskSpec, all others here. This module
imports only ml_collections and declarations, so that config files load fast.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from lmjax.config.model_keys import (
  DEFAULT_PROMPTS,
  DEFAULT_TASKS,
  MODEL_KEYS,
)
from lmjax.task_specs import TASK_SPECS
from lmjax.task_specs.key import (
  Key,
  Keys,
  above_zero,
  choice,
  fraction,
  positive,
  rate,
)
from lmjax.task_specs.task_spec import TaskSpec

_TOKENIZERS = ("byte", "character", "word", "word_punctuation", "bpe")

# Keys of `data` that all tasks have.
_DATA = dict(
  path=Key(""),  # of files: a file, a directory or a glob
  name=Key(""),  # source=tfds: name of the dataset
  data_dir=Key(""),  # source=tfds: its directory
  split_by=choice("ratio", "name"),
  train_files=Key("*train*"),  # split_by=name: comma-separated patterns
  valid_files=Key("*valid*,*val*,*dev*"),
  test_files=Key("*test*"),
  # Largest vocabulary of character and word tokenizers, exact size of a bpe
  # vocabulary; 0: no limit. Special tokens of a task come on top.
  vocab_size=Key(0),
  min_freq=Key(1),
  lower_case=Key(False),
  seq_len=positive(128),  # tokens of a row; longer records are truncated
  batch_size=positive(32),  # rows of a batch over all devices
  num_threads=Key(1),  # threads that prepare batches ahead
  cache_dir=Key(""),  # encoded data; empty: inside the run directory
)
_TEXT_DATA = dict(
  source=Key(
    "python_docs",
    choices=("python_docs", "python_source", "text", "jsonl", "tsv", "tfds"),
  ),
  field=Key("text"),  # jsonl, tfds: field of the text; tsv: column number
  valid_fraction=rate(0.05),  # split_by=ratio: fraction of all characters
  test_fraction=rate(0.05),
  tokenizer=Key("character", choices=_TOKENIZERS),
  append_eos=Key(True),  # end each document with <eos>
  order=choice("stateless", "stateful"),  # whether state is carried over
  reset_at_documents=Key(False),  # reset the state where a document starts
)
_RECORD_SOURCES = (
  "tsv",
  "csv",
  "jsonl",
  "conll",
  "conllu",
  "parallel",
  "tfds",
  "python_tokens",
  "python_signatures",
  "python_docstrings",
  "number_words",
)
_RECORD_DATA = dict(
  header=Key(False),  # tsv, csv: whether the first line names the columns
  valid_fraction=rate(0.1),  # of the records, where validation has no file
  test_fraction=rate(0.1),
  train_fraction=above_zero(1.0, 1),  # fraction of the training records used
  malformed=choice("error", "skip"),  # what to do with malformed records
  # Of texts; records of the tagging task are tokenized already.
  tokenizer=Key("word_punctuation", choices=_TOKENIZERS),
  num_buckets=positive(4),  # of lengths: most shapes that a batch can have
)
_TEXT_PREVIEW = dict(
  # A prompt; for infilling a text with blanks ___, for word vectors the words
  # whose neighbors are listed.
  prompt=Key("\n"),
  num_tokens=Key(200),  # or the number of neighbors
  temperature=Key(0.8),
  top_k=Key(0),  # 0: all
  top_p=above_zero(1.0, 1),
)
_RECORD_PREVIEW = dict(
  num_rows=Key(4),  # validation records whose predictions are shown
)
_SECTIONS: Mapping[str, Keys] = dict(
  loss=dict(
    label_smoothing=rate(0.0),  # weight of the uniform distribution
    z_loss=Key(0.0),  # weight of the squared log-normalizer
  ),
  # A run that a new run takes parameters and the tokenizer from.
  init=dict(
    workdir=Key(""),  # its run directory; empty: none
    checkpoint=Key("best"),  # best | latest | a step
    parameters=Key(".*"),  # parameters to take: a regular expression on paths
  ),
  # A teacher run (classification).
  distill=dict(
    workdir=Key(""),  # its run directory; empty: learn from labels only
    checkpoint=Key("best"),  # best | latest | a step
    weight=fraction(0.5),  # of the distillation loss
    temperature=above_zero(2.0),  # of both softmaxes
  ),
  pretrained=dict(
    vectors=Key(""),  # file of word vectors for the embedding table
    # auto: by file name and first line
    format=choice("auto", "word2vec", "word2vec_binary", "glove"),
  ),
  optim=dict(
    name=choice("adamw", "adagrad", "sgd"),
    learning_rate=Key(1e-3),
    schedule=Key(
      "cosine", choices=("constant", "cosine", "wsd", "inverse_sqrt")
    ),
    warmup_steps=Key(100),
    decay_steps=Key(0),  # cosine, wsd: step where it ends; 0: train.num_steps
    decay_fraction=fraction(0.2),  # wsd: fraction of the steps that decay
    final_fraction=fraction(0.1),  # cosine, wsd: of the peak learning rate
    # Factor of the learning rate when the training loss plateaus; 1: off
    plateau_factor=above_zero(1.0, 1),
    plateau_patience=positive(10),  # averages without improvement
    plateau_every=positive(100),  # steps per average
    b1=rate(0.9),
    b2=rate(0.99),
    eps=Key(1e-8),
    momentum=rate(0.9),  # sgd
    nesterov=Key(False),  # sgd
    weight_decay=Key(0.1),  # decoupled (Loshchilov & Hutter 2019); 0: none
    no_decay=Key(r"(bias|scale|embedding)$"),  # parameters that do not decay
    freeze=Key(""),  # parameters to freeze: a regular expression on paths
    # Pairs of a regular expression on paths and a factor of the learning rate;
    # the first match counts. Weight decay is scaled too.
    lr_multipliers=Key(()),
    clip_norm=Key(1.0),  # largest global norm of gradients; 0: no clipping
    ema_decay=rate(0.0),  # exponential moving average for evaluation; 0: none
    nt_asgd_every=Key(0),  # NT-ASGD: steps per average of the loss; 0: off
    nt_asgd_patience=positive(5),  # averages without improvement before it
  ),
  train=dict(
    num_steps=positive(2000),
    num_microbatches=positive(1),  # parts of a batch, gradients accumulated
    log_every=positive(50),
    eval_every=Key(500),
    eval_batches=Key(0),  # validation batches per evaluation; 0: all
    preview_every=Key(1000),  # 0: never
    checkpoint_every=Key(500),
    # Evaluations without improvement after which training stops; 0: never
    early_stopping_patience=Key(0),
  ),
  checkpoint=dict(
    keep_latest=positive(2),
    keep_best=Key(1),
    # Validation metric that selects the best checkpoint and stops early: loss,
    # or another metric of the task, such as accuracy.
    metric=Key("loss"),
  ),
  parallel=dict(
    strategy=choice("jit", "pmap"),
    num_devices=Key(0),  # 0: all
    # Virtual CPU devices for data parallelism; 0: choose by a probe
    virtual_cpu_devices=Key(0),
    # jit: axes of the device mesh and their sizes; one −1 takes what is left.
    mesh=dict(data=Key(-1, minimum=-1), fsdp=positive(1)),
    # jit: pairs of a regular expression on parameter paths and the mesh axes of
    # the last dimensions; they come before the rules of the model family.
    rules=Key(()),
  ),
)


def get_config(model: str, task: str = "") -> ConfigDict:
  """Return the defaults for a model and a task, locked against unknown keys.

  >>> get_config("lstm").model.width
  256

  Args:
    model: a key of MODEL_KEYS.
    task: a key of TASK_SPECS; empty for what such a model usually learns.
      Tasks on running text have the same keys; each task on records has a
      section of its own.
  """
  task = task or DEFAULT_TASKS.get(model, "language_modeling")
  config = ConfigDict(_defaults(declared_keys(model, task)))
  return config.lock()


def declared_keys(model: str, task: str) -> dict:
  """Return the declarations of a model and task, as nested dicts of Key."""
  spec = TASK_SPECS[task]
  keys = dict(
    seed=Key(0),
    task=Key(task, choices=tuple(TASK_SPECS)),
    model=MODEL_KEYS[model],
    **_record_keys(spec) if spec.has_records else _text_keys(model),
  )
  return keys | _SECTIONS


def _record_keys(spec: TaskSpec) -> dict:
  columns = {role: Key(column) for role, column in spec.columns.items()}
  source = Key(spec.source, choices=_RECORD_SOURCES)
  data = dict(source=source, columns=columns, **_DATA, **_RECORD_DATA)
  return dict(spec.keys, data=data, preview=_RECORD_PREVIEW)


def _text_keys(model: str) -> dict:
  """Merge the keys of all tasks on running text.

  They share them, so that `--config.task=masked_lm` can be given to any config.
  """
  prompt = Key(DEFAULT_PROMPTS.get(model, "\n"))
  keys = dict(
    data={**_DATA, **_TEXT_DATA},
    preview={**_TEXT_PREVIEW, "prompt": prompt},
  )
  for spec in TASK_SPECS.values():
    if not spec.has_records:
      for section, declared in spec.keys.items():
        keys[section] = {**keys.get(section, {}), **declared}
  return keys


def _defaults(keys: Mapping) -> dict:
  """Replace declarations by their defaults."""
  return {
    name: key.default if isinstance(key, Key) else _defaults(key)
    for name, key in keys.items()
  }
