# SPDX-License-Identifier: Apache-2.0
"""All that training an experiment needs, made in shapes and not compiled."""

import functools

import jax

from lmjax.experiment.experiment import Experiment
from lmjax.training.step import train_step


def trace_preview(experiment: Experiment) -> None:
  """Build the preview of an experiment, which checks its config."""
  experiment.spec.preview()(
    experiment.config,
    experiment.task,
    experiment.model,
    experiment.corpus,
    experiment.renderer,
  )


def trace(experiment: Experiment) -> None:
  """Describe the corpus, prepare a sample, and trace a step on a batch."""
  config = experiment.config
  experiment.describe_corpus()
  trace_preview(experiment)
  step = functools.partial(
    train_step,
    task=experiment.task,
    optimizer=experiment.optimizer,
    num_microbatches=config.train.num_microbatches,
    all_reduce=lambda tree: tree,
  )
  batch = experiment.corpus.train_batches()[0]
  state = jax.eval_shape(experiment.make_state)
  new_state, _ = jax.eval_shape(step, state, batch)
  assert jax.tree.structure(new_state) == jax.tree.structure(state)
