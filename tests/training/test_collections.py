# SPDX-License-Identifier: Apache-2.0
"""Variables other than parameters: running statistics, auxiliary losses."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmjax.models.language_model import LanguageModel
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.train_state import create_state
from lmjax.training.step import eval_step, train_step

B, T, V, D = 8, 5, 11, 4


class Model(LanguageModel):
  """Embeddings with a running mean of them and a loss on their size."""

  max_context = None

  def setup(self):
    self.embed = nn.Embed(V, D)
    self.mean = self.variable("statistics", "mean", jnp.zeros, (D,))

  def __call__(self, tokens, carry=None, resets=None):
    x = self.embed(tokens)
    moving = self.is_mutable_collection("statistics")
    if moving and not self.is_initializing():
      self.mean.value = 0.5 * self.mean.value + 0.5 * x.mean((0, 1))
    self.sow("losses", "size", jnp.mean(x**2))
    return x, carry

  def unembedding(self):
    return self.embed.embedding, None


TASK = LanguageModeling(Model(), np.ones(V, np.float32), "byte", False)
OPTIMIZER = optax.with_extra_args_support(optax.sgd(0.0))
TOKENS = np.random.default_rng(0).integers(0, V, (2, B, T)).astype(np.int32)
BATCH = dict(
  inputs=TOKENS[0], targets=TOKENS[1], weights=np.ones((B, T), np.float32)
)


def make_state():
  variables = TASK.init(jax.random.key(0), BATCH)
  return create_state(jax.random.key(0), variables, None, OPTIMIZER)


STRATEGIES = {
  "one": lambda: JitStrategy(jax.devices()[:1], 1, ()),
  "jit": lambda: JitStrategy(jax.devices(), 1, ()),
  "pmap": lambda: PmapStrategy(jax.devices(), 1, ()),
}


@pytest.mark.parametrize(
  ("kind", "num_microbatches"),
  [("one", 1), ("one", 4), ("jit", 1), ("pmap", 1)],
)
def test_statistics_move_and_losses_are_added(kind, num_microbatches):
  strategy = STRATEGIES[kind]()
  state = strategy.create(make_state)
  assert set(state.collections) == {"statistics"}
  x = np.array(state.params["embed"]["embedding"])[TOKENS[0]]
  step = functools.partial(
    train_step,
    task=TASK,
    optimizer=OPTIMIZER,
    num_microbatches=num_microbatches,
  )
  batch = strategy.place_batch(BATCH)
  state, sums = strategy.compile_step(step, state)(state, batch)
  means = sums.means()
  np.testing.assert_allclose(
    means["loss"] - means["nats"], np.mean(x**2), rtol=1e-4
  )
  expected = np.zeros(D)
  for first in range(num_microbatches):
    part = x[first::num_microbatches]
    expected = 0.5 * expected + 0.5 * part.mean((0, 1))
  found = state.collections["statistics"]["mean"]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_evaluation_leaves_statistics_alone():
  strategy = STRATEGIES["one"]()
  state = strategy.create(make_state)
  step = functools.partial(eval_step, task=TASK)
  batch = strategy.place_batch(BATCH)
  after, _ = strategy.compile_step(step, state, donate=False)(state, batch)
  np.testing.assert_array_equal(after.collections["statistics"]["mean"], 0.0)
