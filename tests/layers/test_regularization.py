# SPDX-License-Identifier: Apache-2.0
"""The regularizers of the AWD-LSTM: what their masks share, what they add."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.locked_dropout import LockedDropout
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.train_state import ModelState
from tests.tiny_models import VOCAB_SIZE, recurrent

B, T, D, V = 5, 7, 40, VOCAB_SIZE
RNGS = {"dropout": jax.random.key(3)}
KEPT = np.float32(1 / (1 - 0.4))


def test_locked_dropout_has_a_mask_a_row_for_all_tokens():
  ones = jnp.ones((B, T, D))
  dropped = np.array(LockedDropout(0.4).apply({}, ones, rngs=RNGS))
  assert set(np.unique(dropped)) == {0.0, KEPT}
  np.testing.assert_array_equal(dropped, dropped[:, :1].repeat(T, 1))
  assert len({row.tobytes() for row in dropped[:, 0]}) == B
  np.testing.assert_array_equal(LockedDropout(0.4).apply({}, ones), ones)


def test_embedding_dropout_drops_a_token_wherever_it_stands():
  tokens = jax.random.randint(jax.random.key(0), (B, T), 0, V)
  ones = jnp.ones((B, T, D))
  drop = EmbeddingDropout(0.4, V)
  dropped = np.array(drop.apply({}, ones, tokens, rngs=RNGS))
  assert set(np.unique(dropped)) == {0.0, KEPT}
  for token in np.unique(tokens):
    assert len(np.unique(dropped[tokens == token])) == 1
  np.testing.assert_array_equal(drop.apply({}, ones, tokens), ones)


def test_weight_drop_is_another_kernel_for_the_whole_call():
  layer = RecurrentLayer("gru", D, weight_drop=0.4)
  x = jax.random.normal(jax.random.key(0), (B, T, 3))
  state = layer.initial_state(B, 3)
  variables = layer.init(jax.random.key(1), x, state)
  (hidden, _), seen = layer.apply(
    variables, x, state, rngs=RNGS, capture_intermediates=True
  )
  drop = seen["intermediates"]["WeightDrop_0"]["__call__"][0]
  kernel = variables["params"]["recurrent_kernel"]
  kept = np.array(drop != 0)
  np.testing.assert_allclose(drop[kept], kernel[kept] * KEPT, rtol=1e-6)
  assert abs(kept.mean() - 0.6) < 0.03
  params = {**variables["params"], "recurrent_kernel": drop}
  expected, _ = layer.apply({"params": params}, x, state)
  np.testing.assert_allclose(hidden, expected, atol=1e-6)


def test_activations_are_weighed_as_means_in_training_alone():
  """The loss is nats + α mean(h²) + β mean((h[t] - h[t - 1])²)."""
  model = recurrent(
    "rnn",
    num_layers=2,
    activation_regularization=2.0,
    temporal_activation_regularization=3.0,
  )
  task = LanguageModeling(model, np.ones(V, np.float32), "byte", False)
  tokens = jax.random.randint(jax.random.key(0), (2, B, T), 0, V)
  weights = jax.random.uniform(jax.random.key(1), (B, T))
  batch = dict(inputs=tokens[0], targets=tokens[1], weights=weights)
  variables = task.init(jax.random.key(2), batch)
  assert set(variables) == {"params"}

  def added(train):
    outcome = task.loss(
      variables["params"], ModelState({}, None), batch, RNGS, train
    )
    assert outcome.model_state.collections == {}
    means = outcome.sums.means()
    return means["loss"] - means["nats"]

  hidden, _ = model.apply(variables, tokens[0])
  change = hidden[:, 1:] - hidden[:, :-1]
  expected = 2.0 * jnp.mean(hidden**2) + 3.0 * jnp.mean(change**2)
  np.testing.assert_allclose(added(train=True), expected, rtol=1e-5)
  assert added(train=False) == 0.0
