# SPDX-License-Identifier: Apache-2.0
"""The validation metric that selects the best checkpoint."""

import itertools

import jax

from lmjax.errors import UserError
from lmjax.experiment.experiment import Experiment
from lmjax.metrics.metric import find_metric
from lmjax.prediction.predictor import Predictor
from lmjax.training.evaluation import Evaluator
from lmjax.training.session import Session


class CheckpointMetric:
  """The metric named by checkpoint.metric.

  It is either a metric of the task, computed from sums in every evaluation, or
  one that is computed from predictions for records (BLEU, retrieval, the F1 of
  a label, …). Predictions are made only in the second case: they cost a pass
  over the validation records, with a beam search for target sequences.

  Attributes:
    metric: the name and direction.

  Raises:
    UserError: if the task has no such metric.
  """

  def __init__(self, experiment: Experiment, evaluator: Evaluator):
    config, task = experiment.config, experiment.task
    name, self._predictor = config.checkpoint.metric, None
    renderer = experiment.renderer
    of_task = find_metric(name, task.directions)
    of_predictions = renderer and find_metric(name, renderer.directions)
    known = evaluator.metric_names(experiment.make_state)
    if of_task and name in known:
      self.metric = of_task
    elif of_predictions:
      self.metric = of_predictions
      self._prepare(experiment)
    else:
      listed = [*known, *(renderer.directions if renderer else ())]
      raise UserError(
        f"checkpoint.metric={name} is not a metric of task={config.task}; "
        f"choose one of {', '.join(listed)}."
      )

  def _prepare(self, experiment: Experiment) -> None:
    config, corpus = experiment.config, experiment.corpus
    if jax.process_count() > 1:
      raise UserError(
        f"checkpoint.metric={self.metric.name} is computed from predictions, "
        "which needs a single process; choose a metric of the task, such as "
        "loss."
      )
    size = config.data.batch_size
    self._predictor = Predictor(
      experiment.task, corpus, experiment.renderer, size
    )
    limit = config.train.eval_batches * size or None
    self._rows = list(itertools.islice(corpus.kept_rows("valid"), limit))

  def from_predictions(self, session: Session) -> dict[str, float]:
    """Compute the metrics of predictions, if one of them was named.

    Raises:
      UserError: if the validation records have no such metric, as of a label
        that does not occur.
    """
    if self._predictor is None:
      return {}
    pairs = self._predictor(session.eval_variables(), self._rows)
    report = self._predictor.evaluate(pairs)
    if self.metric.name not in report:
      raise UserError(
        f"checkpoint.metric={self.metric.name} is not a metric of the "
        f"validation records; choose one of {', '.join(report)}."
      )
    return report
