# SPDX-License-Identifier: Apache-2.0
"""Recurrent sequence-to-sequence models: decoding, attention and copying."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config import defaults
from lmjax.errors import UsageError
from lmjax.layers.global_attention import KINDS, GlobalAttention
from lmjax.models.recurrent_decoder import ATTENTIONS
from lmjax.task_specs.build import build_model
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE

B, T, S, V = 3, 6, 5, VOCAB_SIZE
KEYS = jax.random.split(jax.random.key(1))
TOKENS = jax.random.randint(KEYS[0], (B, T), 0, V)
SOURCES = jax.random.randint(KEYS[1], (B, S), 0, V)
LENGTHS = (5, 3, 4)
MASK = jnp.arange(S)[None] < jnp.array(LENGTHS)[:, None]
TARGETS = jnp.roll(TOKENS, -1, axis=1)
WEIGHTS = (jnp.arange(T)[None] < jnp.array([[6], [4], [5]])).astype(jnp.float32)
# Settings that cover every option of the model.
SETTINGS = {
  "none, gru": dict(attention="none", cell="gru", num_layers=2),
  "additive, one direction": dict(attention="additive", bidirectional=False),
  "scaled, fed, tied": dict(
    attention="scaled_dot",
    input_feeding=True,
    tie_embeddings=True,
    num_encoder_layers=2,
  ),
  "copies": dict(copy_mechanism=True),
}
EACH = pytest.mark.parametrize("name", SETTINGS)


def make(source_vocab_size=0, **settings):
  config = defaults.get_config(model="recurrent_seq2seq")
  sizes = dict(width=8, embedding_width=6, dropout=0.0)
  config.model.update(sizes | settings)
  return build_model(config, V, source_vocab_size=source_vocab_size)


@functools.cache
def prepared(name):
  model = make(**SETTINGS[name])
  return model, random_variables(model, TOKENS)


@functools.partial(jax.jit, static_argnums=0)
def run(
  model,
  variables,
  sources=SOURCES,
  mask=MASK,
  tokens=TOKENS,
  targets=TARGETS,
):
  """Return output, log-probabilities, memory, attention weights and sums."""
  memory = model.apply(variables, sources, mask, method="encode")
  (made, none), shown = model.apply(
    variables, tokens, memory=memory, mutable=["intermediates"]
  )
  assert none is None
  logits = model.apply(variables, made, method="logits")
  weights = shown.get("intermediates", {}).get("attention_weights", ())
  sums = model.apply(variables, made, targets, WEIGHTS, method="cross_entropy")
  return made, jax.nn.log_softmax(logits), memory, weights, sums


@functools.partial(jax.jit, static_argnums=0)
def step(model, variables, tokens, memory, carry):
  made, carry = model.apply(variables, tokens, carry, memory=memory)
  logits = model.apply(variables, made, method="logits")
  return jax.nn.log_softmax(logits), carry


@EACH
def test_decoding_steps_equal_the_full_forward_pass(name):
  model, variables = prepared(name)
  _, full, memory, _, _ = run(model, variables)
  decoder, laid_out = model.for_decoding(variables, B)
  carry, pieces = decoder.initial_carry(B, T), []
  for t in range(T):
    now = TOKENS[:, t : t + 1]
    out, carry = step(decoder, laid_out, now, memory, carry)
    pieces.append(out)
  np.testing.assert_allclose(full, jnp.concatenate(pieces, 1), atol=2e-4)


@EACH
def test_padding_and_order_of_sources_change_nothing(name):
  model, variables = prepared(name)
  plain = run(model, variables)[1]
  other = jnp.where(MASK, SOURCES, (SOURCES + 3) % V)[::-1]
  reversed_rows = run(model, variables, other, MASK[::-1], TOKENS[::-1])[1]
  np.testing.assert_allclose(reversed_rows[::-1], plain, atol=1e-5)


@EACH
def test_outputs_depend_on_earlier_targets_and_the_whole_source(name):
  model, variables = prepared(name)
  plain = run(model, variables)[1][0]

  def moved(sources, tokens):
    scores = run(model, variables, sources, MASK, tokens)[1][0]
    return np.abs(scores - plain).max(axis=-1)

  other = TOKENS.at[0, 3].set((TOKENS[0, 3] + 1) % V)
  by_token = moved(SOURCES, other)
  assert np.all(by_token[:3] < 1e-5) and np.all(by_token[3:] > 1e-5)
  for position in (0, S - 1):
    other = SOURCES.at[0, position].set((SOURCES[0, position] + 1) % V)
    assert np.all(moved(other, TOKENS) > 1e-6)


@EACH
def test_cross_entropy_matches_the_log_probabilities(name):
  model, variables = prepared(name)
  log_probs = run(model, variables)[1]
  best = jnp.argmax(log_probs, axis=-1)
  targets = jnp.where(jnp.arange(T) % 2, best, TARGETS)
  sums = run(model, variables, targets=targets)[4]
  picked = jnp.take_along_axis(log_probs, targets[..., None], 2)[..., 0]
  np.testing.assert_allclose(sums.nats, -(picked * WEIGHTS).sum(), rtol=1e-4)
  right = jnp.sum((targets == best) * WEIGHTS)
  np.testing.assert_allclose(sums.correct, right)
  assert 0 < right < WEIGHTS.sum()


def test_copy_gradients_match_autodiff_of_log_probabilities():
  model, variables = prepared("copies")
  pointing = run(model, variables)[0]
  sources = pointing.sources_BTS

  @jax.jit
  @jax.grad
  def ours(parts):
    made = pointing._replace(**parts)
    return model.apply(
      variables, made, TARGETS, WEIGHTS, method="cross_entropy"
    ).loss

  @jax.jit
  @jax.grad
  def plain(parts):
    made = pointing._replace(**parts)
    log_probs = model.apply(variables, made, method="logits")
    picked = jnp.take_along_axis(log_probs, TARGETS[..., None], 2)[..., 0]
    return -(picked * WEIGHTS).sum()

  parts = pointing._asdict()
  del parts["sources_BTS"]
  assert sources.shape == (B, T, S)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    ours(parts),
    plain(parts),
  )


def test_copy_probabilities_are_of_source_tokens_and_sum_to_one():
  model, variables = prepared("copies")
  pointing, _, _, _, _ = run(model, variables)
  logits = model.apply(variables, pointing, method="logits")
  np.testing.assert_allclose(jnp.exp(logits).sum(axis=-1), 1.0, atol=1e-5)
  shut = pointing._replace(gate_BT=jnp.zeros((B, T)))
  copied = jnp.exp(model.apply(variables, shut, method="logits"))
  for row, size in enumerate(LENGTHS):
    tokens = set(np.array(SOURCES[row, :size]).tolist())
    for token in range(V):
      probability = copied[row, :, token]
      expected = sum(
        pointing.weights_BTS[row, :, position]
        for position in range(size)
        if SOURCES[row, position] == token
      )
      np.testing.assert_allclose(probability, expected, atol=1e-6)
      assert (token in tokens) == bool(np.all(probability > 1e-6))


@pytest.mark.parametrize("kind", KINDS)
def test_attention_equals_its_formula(kind):
  rng = np.random.default_rng(0)
  width = 4 if kind in ("dot", "scaled_dot") else 7
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  query, memory = normal(B, T, 4), normal(B, S, width)
  module = GlobalAttention(kind, 4)

  def whole(module, query, memory):
    return module(query, module.keys(memory), memory, MASK)

  variables = module.init(jax.random.key(0), query, memory, method=whole)
  variables = jax.tree.map(lambda x: normal(*x.shape), variables)
  average, weights = module.apply(variables, query, memory, method=whole)
  params = variables.get("params", {})
  kernel = {k: v["kernel"] for k, v in params.items()}
  for b in range(B):
    for t in range(T):
      score = np.full(S, -np.inf)
      for s in range(LENGTHS[b]):
        q, k = query[b, t], memory[b, s]
        if kind == "additive":
          inner = q @ kernel["query"] + params["query"]["bias"]
          score[s] = np.tanh(inner + k @ kernel["key"]) @ kernel["score"][:, 0]
        elif kind == "general":
          score[s] = q @ (k @ kernel["key"])
        else:
          score[s] = q @ k / (2.0 if kind == "scaled_dot" else 1.0)
      expected = np.exp(score - score.max())
      expected /= expected.sum()
      np.testing.assert_allclose(weights[b, t], expected, atol=1e-5)
      np.testing.assert_allclose(average[b, t], expected @ memory[b], atol=1e-4)
  assert np.all(np.array(weights)[~np.array(MASK)[:, None].repeat(T, 1)] == 0)


@pytest.mark.parametrize("name", ["copies", "scaled, fed, tied"])
def test_attention_weights_are_sown_on_request(name):
  (weights,) = run(*prepared(name))[3]
  assert weights.shape == (B, T, S)
  np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)
  assert np.all(np.where(MASK[:, None], 0.0, weights) == 0.0)


def test_sources_can_have_their_own_vocabulary():
  model = make(source_vocab_size=V + 4, attention="none")
  params = random_variables(model, TOKENS)["params"]
  table = params["source_embedding"]["embedding"]
  assert table.shape == (V + 4, 6)
  assert params["embedding"]["embedding"].shape == (V, 6)
  plain = run(model, {"params": params})[2]
  other = dict(params, source_embedding={"embedding": 2 * table})
  moved = run(model, {"params": other})[2]
  assert np.abs(moved.values_BSE - plain.values_BSE).max() > 1e-3


def test_scheduled_sampling_replaces_inputs_only_in_training():
  model, variables = prepared("additive, one direction")
  sampling = model.clone(scheduled_sampling=1.0)
  plain, _, memory, _, _ = run(model, variables)

  @jax.jit
  def made(variables, tokens, key):
    rngs = {"dropout": key}
    return sampling.apply(variables, tokens, memory=memory, rngs=rngs)[0]

  quiet, _ = sampling.apply(variables, TOKENS, memory=memory)
  np.testing.assert_allclose(plain, quiet, atol=1e-6)
  keys = jax.random.split(jax.random.key(0), 2)
  first = made(variables, TOKENS, keys[0])
  np.testing.assert_allclose(first[:, 0], plain[:, 0], atol=1e-5)
  assert np.abs(first[:, 1:] - plain[:, 1:]).max() > 1e-3
  # At rate 1 only the first token is an input; all others are sampled ...
  others = TOKENS.at[:, 1:].set(0)
  np.testing.assert_array_equal(first, made(variables, others, keys[0]))
  assert np.abs(first - made(variables, TOKENS, keys[1])).max() > 1e-3
  # ... from the model: one that puts all probability on a token samples it.
  bias = jnp.zeros(V).at[7].set(50.0)
  sure = dict(table=jnp.zeros((V, 8)), bias=bias)
  sure = {"params": {**variables["params"], "output": sure}}
  sevens = TOKENS.at[:, 1:].set(7)
  expected = run(model, sure, SOURCES, MASK, sevens)[0]
  np.testing.assert_allclose(made(sure, TOKENS, keys[0]), expected, atol=1e-5)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(width=7), "model.width=7 must be even"),
    (
      dict(attention="none", copy_mechanism=True),
      "copies by attention weights",
    ),
    (
      dict(attention="none", tie_embeddings=True),
      "=6 must equal model.width=8",
    ),
  ],
)
def test_incompatible_settings_are_rejected(settings, message):
  with pytest.raises(UsageError, match=message):
    make(**settings)


def test_copying_rejects_regularizers_and_two_vocabularies():
  config = defaults.get_config(model="recurrent_seq2seq")
  config.model.copy_mechanism = True
  config.loss.label_smoothing = 0.1
  with pytest.raises(UsageError, match="has no logits to regularize"):
    build_model(config, V)
  config.loss.label_smoothing = 0.0
  config.seq2seq.target_tokenizer = "character"
  with pytest.raises(
    UsageError, match="one vocabulary for sources and targets"
  ):
    build_model(config, V)


def test_unknown_attention_of_a_direct_constructor_is_rejected():
  model = make()
  model = model.clone(decoder=model.decoder.clone(attention="x"))
  with pytest.raises(UsageError, match="attention=x is invalid: expected one"):
    jax.eval_shape(model.init, jax.random.key(0), TOKENS)


def test_missing_source_is_an_error():
  model, variables = prepared("none, gru")
  with pytest.raises(UsageError, match="needs source sequences; choose"):
    model.apply(variables, TOKENS)


def test_every_attention_layer_is_selectable():
  assert set(ATTENTIONS) == {"none", *KINDS}
