# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.feedforward import FeedForward
from lmjax.layers.moe import Experts, MixtureOfExperts

B, T, D, F, X = 2, 7, 4, 6, 3
TRAINING = {"dropout": jax.random.key(9)}


def mixture(kind="geglu", use_bias=True, **experts):
  return MixtureOfExperts(
    experts=Experts(**experts), kind=kind, width=F, use_bias=use_bias
  )


def draw(layer, seed=0):
  """Make variables large enough that experts differ, and inputs."""
  x_BTD = jax.random.normal(jax.random.key(seed), (B, T, D))
  params = jax.jit(layer.init)(jax.random.key(1), x_BTD)["params"]
  rng = np.random.default_rng(2)
  grow = lambda leaf: leaf + rng.normal(size=leaf.shape) / 2  # noqa: E731
  return jax.tree.map(grow, params), x_BTD


@functools.partial(jax.jit, static_argnums=0)
def run(layer, params, x_BTD, rngs=None):
  return layer.apply({"params": params}, x_BTD, rngs=rngs, mutable=["losses"])


def loop(layer, params, x_BTD):
  """Visit experts token by token, each a plain feed-forward layer."""
  experts = layer.experts
  router = np.array(params["router"]["kernel"])
  dense = FeedForward(layer.kind, F, use_bias=layer.use_bias)
  apart = [
    {
      name: jax.tree.map(lambda leaf, i=index: leaf[i], params[name])
      for name in params
      if name != "router"
    }
    for index in range(experts.number)
  ]
  by_expert = [dense.apply({"params": own}, x_BTD) for own in apart]
  out = np.zeros(x_BTD.shape)
  for b in range(len(x_BTD)):
    for t in range(x_BTD.shape[1]):
      share = np.array(jax.nn.softmax(x_BTD[b, t] @ router))
      chosen = np.argsort(-share)[: experts.per_token]
      total = share[chosen].sum() if experts.per_token > 1 else 1.0
      for expert in chosen:
        out[b, t] += share[expert] / total * by_expert[expert][b, t]
  return out


@pytest.mark.parametrize("kind", ["relu", "geglu"])
def test_one_expert_is_a_dense_layer(kind):
  layer = mixture(kind, number=1, per_token=1)
  params, x_BTD = draw(layer)
  out, _ = run(layer, params, x_BTD)
  own = {k: v for k, v in params.items() if k != "router"}
  own = jax.tree.map(lambda leaf: leaf[0], own)
  dense = FeedForward(kind, F, use_bias=True).apply({"params": own}, x_BTD)
  np.testing.assert_allclose(out, dense, atol=1e-5)


@pytest.mark.parametrize("per_token", [1, 2])
def test_without_limits_it_is_a_loop_over_experts(per_token):
  layer = mixture(number=X, per_token=per_token)
  params, x_BTD = draw(layer)
  out, _ = run(layer, params, x_BTD)
  np.testing.assert_allclose(out, loop(layer, params, x_BTD), atol=1e-5)


def test_a_wide_limit_drops_nobody_and_learns_alike():
  """Both ways through the experts, with all gradients."""
  free = mixture(number=X, per_token=2)
  wide = mixture(number=X, per_token=2, capacity_factor=X)
  params, x_BTD = draw(free)
  cotangent = jax.random.normal(jax.random.key(3), x_BTD.shape)

  def gradients(layer):
    def loss(params, x_BTD):
      return jnp.vdot(run(layer, params, x_BTD, TRAINING)[0], cotangent)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x_BTD)

  for a, b in zip(
    *map(jax.tree.leaves, map(gradients, (free, wide))), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert all(jnp.abs(g).max() > 1e-3 for g in jax.tree.leaves(gradients(free)))


def test_a_narrow_limit_drops_later_tokens_in_training_alone():
  narrow = mixture(number=X, per_token=1, capacity_factor=0.5)
  params, x_BTD = draw(narrow)
  every = loop(narrow, params, x_BTD)
  evaluated, _ = run(narrow, params, x_BTD)
  np.testing.assert_allclose(evaluated, every, atol=1e-5)
  trained, _ = run(narrow, params, x_BTD, TRAINING)
  capacity = 2  # ⌈0.5 · 7 / 3⌉
  router = np.array(params["router"]["kernel"])
  chosen = np.argmax(np.array(x_BTD) @ router, axis=-1)
  dropped = 0
  for b in range(B):
    taken = np.zeros(X, int)
    for t in range(T):
      taken[chosen[b, t]] += 1
      full = taken[chosen[b, t]] > capacity
      dropped += full
      expected = 0.0 if full else every[b, t]
      np.testing.assert_allclose(trained[b, t], expected, atol=1e-5)
  assert 0 < dropped < B * T


def test_a_limit_lets_no_token_depend_on_a_later_one():
  narrow = mixture(number=X, per_token=2, capacity_factor=0.7)
  params, x_BTD = draw(narrow)
  before, _ = run(narrow, params, x_BTD, TRAINING)
  other = x_BTD.at[:, 4:].set(jax.random.normal(jax.random.key(5), (B, 3, D)))
  after, _ = run(narrow, params, other, TRAINING)
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert jnp.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_losses_are_those_of_the_papers():
  layer = mixture(number=X, per_token=2, balance_loss=0.5, router_z_loss=0.25)
  params, x_BTD = draw(layer)
  _, changed = run(layer, params, x_BTD)
  logits = np.array(x_BTD.reshape(-1, D) @ params["router"]["kernel"])
  share = np.array(jax.nn.softmax(logits))
  visits = np.zeros(X)
  for token in share:
    visits[np.argsort(-token)[:2]] += 1 / 2 / (B * T)
  balance = X * np.sum(visits * share.mean(0))
  log_z = np.log(np.exp(logits).sum(-1))
  (found_balance,) = changed["losses"]["balance"]
  (found_z,) = changed["losses"]["router_z"]
  np.testing.assert_allclose(found_balance, 0.5 * balance, rtol=1e-5)
  np.testing.assert_allclose(found_z, 0.25 * np.mean(log_z**2), rtol=1e-5)


def test_experts_begin_apart_and_as_large_as_a_dense_layer():
  layer = MixtureOfExperts(
    Experts(number=X, per_token=1), "relu", 64, initializer="glorot_uniform"
  )
  init = jax.jit(layer.init)
  params = init(jax.random.key(0), jnp.zeros((B, T, 32)))["params"]
  kernels = params["up"]["kernel"]
  limit = (6 / (32 + 64)) ** 0.5
  assert 0.95 * limit < jnp.abs(kernels).max() <= limit
  assert jnp.abs(kernels[0] - kernels[1]).max() > 0.5 * limit
