# SPDX-License-Identifier: Apache-2.0
"""Predictors of experiments."""

from lmjax.experiment.experiment import Experiment
from lmjax.prediction.predictor import Predictor


def predictor_of(experiment: Experiment, batch_size: int = 0) -> Predictor:
  """Return what predicts with an experiment, by default in its batch size."""
  return Predictor(
    experiment.task,
    experiment.corpus,
    experiment.renderer,
    batch_size or experiment.config.data.batch_size,
  )
