# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np

from lmjax.tasks.seq2seq import DenoisingSeq2Seq
from lmjax.train_state import ModelState
from tests.tiny_models import VOCAB_SIZE, encoder_decoder


def test_targets_are_predicted_from_the_sources_and_those_before():
  """Padding of sources is not seen, later inputs are not, all else is."""
  model = encoder_decoder(num_layers=1, num_encoder_layers=1)
  units = np.ones(VOCAB_SIZE, np.float32)
  task = DenoisingSeq2Seq(model, units, "byte", stateful=False)
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.integers(0, VOCAB_SIZE, shape)  # noqa: E731
  weights = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], np.float32)
  batch = dict(
    sources=draw(2, 7),
    source_mask=np.arange(7) < np.array([[6], [4]]),
    inputs=draw(2, 5),
    targets=draw(2, 5),
    weights=weights,
  )
  params = jax.jit(task.init)(jax.random.key(1), batch)["params"]

  @jax.jit
  def sums(batch):
    return task.loss(params, ModelState({}, None), batch, {}, train=False).sums

  def matters(field, row, place):
    tokens = batch[field].copy()
    tokens[row, place] = (tokens[row, place] + 1) % VOCAB_SIZE
    return sums(batch | {field: tokens}).loss != sums(batch).loss

  assert sums(batch).weight == 5
  assert matters("sources", 0, 5) and not matters("sources", 0, 6)
  assert matters("sources", 1, 3) and not matters("sources", 1, 4)
  assert matters("inputs", 1, 1) and not matters("inputs", 1, 2)
  assert matters("targets", 0, 2) and not matters("targets", 0, 3)
  report = task.report(dict(loss=2.0, nats=0.0, units=1.0, accuracy=0.5))
  assert report == dict(loss=2.0, accuracy=0.5, perplexity=1.0)
