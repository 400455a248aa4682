# SPDX-License-Identifier: Apache-2.0
"""What the settings of a task must keep together, said before anything is read.

What is wrong in a model by itself, its builder says.
"""

from ml_collections import ConfigDict

from lmjax.data.records.schemas import SCHEMAS
from lmjax.data.text.objectives import make_objective
from lmjax.errors import UsageError
from lmjax.prediction.seq2seq import METRICS, names_of
from lmjax.tasks.classification import FOR_MANY


def check_task(config: ConfigDict) -> None:
  """Check the settings of a config's task.

  Raises:
    UsageError: naming the keys, their values and what is accepted.
  """
  if config.distill.workdir:
    _teacher(config)
  if config.task not in SCHEMAS:
    _text(config)
  elif config.task in CHECKS:
    CHECKS[config.task](config)


def _pairs(config: ConfigDict) -> None:
  """Check how targets are written, searched for and judged."""
  options, model = config.seq2seq, config.model
  if options.num_best > options.beam_size:
    raise UsageError(
      f"seq2seq.num_best={options.num_best} must be at most seq2seq.beam_size="
      f"{options.beam_size}."
    )
  attends = "attention" not in model or model.attention != "none"
  if options.coverage_penalty and (options.beam_size == 1 or not attends):
    raise UsageError(
      f"seq2seq.coverage_penalty={options.coverage_penalty} needs "
      "seq2seq.beam_size above 1 and a model that attends to its source; set "
      "it to 0."
    )
  for name in names_of(options.metrics):
    if name not in METRICS:
      raise UsageError(
        f"seq2seq.metrics={options.metrics} names {name!r}, which is not "
        f"known; choose among {', '.join(METRICS)}."
      )
  if "positions" in model and model.positions == "learned":
    context = model.max_context or config.data.window
    if options.max_target_length > context:
      raise UsageError(
        f"seq2seq.max_target_length={options.max_target_length} is more than "
        f"the {context} learned positions; set model.max_context to as many."
      )


def _teacher(config: ConfigDict) -> None:
  """Check that a teacher has something to say."""
  if config.task != "classification":
    raise UsageError(
      f"distill.workdir={config.distill.workdir} is not for task="
      f"{config.task}; classification alone learns from another run."
    )
  if config.classification.labels == "many":
    raise UsageError(
      f"distill.workdir={config.distill.workdir} is not for "
      "classification.labels=many; a text must have one."
    )


def _classes(config: ConfigDict) -> None:
  """Check that a loss is of as many labels, and read what it is told."""
  options = config.classification
  if options.labels == "many" and options.criterion not in FOR_MANY:
    raise UsageError(
      f"classification.criterion={options.criterion} is for one label a text; "
      f"choose one of {', '.join(FOR_MANY)} for classification.labels=many."
    )
  if options.labels == "many" and options.class_weights != "none":
    raise UsageError(
      f"classification.class_weights={options.class_weights} is for one label "
      "a text; set it to none for classification.labels=many."
    )
  if options.criterion != "cross_entropy":
    _unread_loss(config, f"classification.criterion={options.criterion}")


def _unread_loss(config: ConfigDict, reader: str = "") -> None:
  """Check that nothing is asked of a loss that has no such settings."""
  for key in ("label_smoothing", "z_loss"):
    if config.loss[key]:
      raise UsageError(
        f"loss.{key}={config.loss[key]} is not read by "
        f"{reader or f'task={config.task}'}; set it to 0."
      )


def _text(config: ConfigDict) -> None:
  """Check what is particular to running text."""
  if config.data.order == "stateful" and config.task != "language_modeling":
    raise UsageError(
      f"data.order=stateful is not for task={config.task}, which remembers "
      "nothing; choose stateless."
    )
  objective = make_objective(config)
  model = config.model
  if "positions" not in model or model.positions != "learned":
    return
  context = model.max_context or config.data.window
  if objective.longest > context:
    raise UsageError(
      f"task={config.task} makes rows of {objective.longest} tokens, more than "
      f"the {context} learned positions; set "
      f"model.max_context={objective.longest}."
    )


CHECKS = {
  "classification": _classes,
  "matching": _unread_loss,
  "seq2seq": _pairs,
  "tagging": _unread_loss,
}
