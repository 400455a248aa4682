# SPDX-License-Identifier: Apache-2.0
"""The definition of a task: everything that depends on `config.task`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs.key import Keys

# A function that imports and returns a class or function of a package above
# this one. Such imports run on demand, which keeps the import order free of
# cycles and makes `lmjax.config` importable without JAX.
Loader = Callable[[], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSpec:
  """A task, from its data to what is shown of it.

  To add a task, write a file with its spec in this package and name it in
  `TASK_SPECS`; no other table is keyed by task name.

  Attributes:
    name: the value of `config.task`.
    model_kind: kind of model that learns it; a model lists the kinds that it
      supports in `model.kinds`.
    build: builds the task: (config, model, corpus) → Task. The corpus offers
      what a task needs to know of the data in `corpus.task_inputs`.
    preview: loads what training shows of a model: (config, task, model, corpus,
      renderer) → (variables → text).
    keys: section of the config → the keys that this task declares in it.
    examples: for tasks on running text, loads what turns token sequences into
      batches: (config, rows, open_train, tokenizer, cache_dir) → Batches.
    objective: for tasks on running text, loads what rewrites sequences before
      they are learned from: config → Objective. None to take them as they are.
    schema: for tasks on records, loads what turns records into examples:
      (config, train_tokenizer) → Schema. None for tasks on running text.
    columns: for tasks on records, role → default column of a table.
    source: default `data.source`.
    head: for tasks on records, loads what is put on a text encoder: (config,
      encoder, **sizes) → module.
    model_options: arguments of the builder of a model of its kind.
    renderer: for tasks on records, builds what turns outputs into JSON:
      (config, vocabularies) → Renderer.
    sampler: loads the class that generates text with the model.
    scorer: loads what scores text token by token; see lmjax.scoring.
    infiller: loads the class that fills blanks.
    explainer: loads the function that attributes a prediction to tokens.
    checks: checks the keys of the task together; raises UsageError.
    check_searchable: checks that the vectors of a run can be searched: (config,
      path of its run directory) → None; raises UsageError. None if the task
      learns no vectors of texts.
    reads_sources: whether texts are generated and scored given a source text,
      not a prompt that they continue.
    is_auxiliary: whether a run can be a draft model, reranker or expert of
      another run, that is, whether it predicts the next token of any text.
    is_stateful: whether `data.order=stateful` is supported.
    learns_words: whether the tokens of the model are words with vectors.
    sums_tables: whether the vector of a word is the sum of both tables.
    distills: whether it can learn from the scores of another run.
  """

  name: str
  model_kind: str
  build: Callable[[ConfigDict, Any, Any], Any]
  preview: Loader
  keys: Mapping[str, Keys] = dataclasses.field(default_factory=dict)
  examples: Loader | None = None
  objective: Loader | None = None
  schema: Loader | None = None
  columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
  source: str = "python_docs"
  head: Loader | None = None
  model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  renderer: Callable[[ConfigDict, Any], Any] | None = None
  sampler: Loader | None = None
  scorer: Loader | None = None
  infiller: Loader | None = None
  explainer: Loader | None = None
  checks: Callable[[ConfigDict], None] | None = None
  check_searchable: Callable[[ConfigDict, str], None] | None = None
  reads_sources: bool = False
  is_auxiliary: bool = False
  is_stateful: bool = False
  learns_words: bool = False
  sums_tables: bool = False
  distills: bool = False

  @property
  def has_records(self) -> bool:
    """Return whether the task learns from records, not from running text."""
    return self.schema is not None
