# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.cells import CELLS
from lmjax.ops.cudnn_lstm import pack
from lmjax.ops.recurrence import Kernels, scan_layer

B, T, E, D, P = 2, 5, 3, 4, 3
GOLDEN = Path(__file__).parent / "golden"


def layer_norm(x):
  variance = jnp.var(x, axis=-1, keepdims=True)
  return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(variance + 1e-5)


def next_state(name, projected, recurrent, state, vectors):
  """One step in the words of the papers, batch first."""
  if name == "layer_norm_lstm":
    scale_Z, scale_D, bias_D = vectors
    both = projected + scale_Z[None] * layer_norm(recurrent)
    i, f, g, o = jnp.split(both, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    level = scale_D[None] * layer_norm(c) + bias_D[None]
    return jax.nn.sigmoid(o) * jnp.tanh(level), c
  both = projected + recurrent
  if name == "lstm":
    i, f, g, o = jnp.split(both, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
  if name == "gru":
    r, z, _ = jnp.split(jax.nn.sigmoid(both), 3, axis=-1)
    n = jnp.tanh(projected[:, 2 * D :] + r * recurrent[:, 2 * D :])
    return ((1.0 - z) * n + z * state[0],)
  return (jnp.tanh(both) if name == "rnn" else jax.nn.relu(both),)


def plain_scan(name, x, kernels, state, resets, mask):
  """The same recurrence in plain words, differentiated by JAX."""

  def step(state, inputs):
    projected, reset, move = inputs
    state = tuple(jnp.where(reset[:, None] > 0, 0.0, s) for s in state)
    if kernels.input_EZ is not None:
      projected = projected @ kernels.input_EZ + kernels.bias_Z[None]
    recurrent = state[0] @ kernels.recurrent_DZ
    if kernels.recurrent_bias_Z is not None:
      recurrent += kernels.recurrent_bias_Z[None]
    new = next_state(name, projected, recurrent, state, kernels.vectors)
    if kernels.projection_DP is not None:
      new = (new[0] @ kernels.projection_DP, *new[1:])
    state = tuple(
      jnp.where(move[:, None] > 0, a, b)
      for a, b in zip(new, state, strict=True)
    )
    return state, state[0]

  resets = jnp.zeros((B, T)) if resets is None else resets
  mask = jnp.ones((B, T)) if mask is None else mask
  by_time = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), (x, resets, mask))
  state, hidden = jax.lax.scan(step, state, by_time)
  return hidden.swapaxes(0, 1), state


def example(
  name,
  dtype=jnp.float64,
  with_recurrent_bias=False,
  with_projection=False,
  with_input_kernel=True,
):
  rng = np.random.default_rng(0)
  cell = CELLS[name]

  def draw(*shape):
    return jnp.array(rng.normal(size=shape), dtype)

  columns, width = cell.num_gates * D, P if with_projection else D
  kernels = Kernels(draw(E, columns), draw(width, columns), draw(columns))
  if with_recurrent_bias:
    kernels = kernels._replace(recurrent_bias_Z=draw(columns))
  if with_projection:
    kernels = kernels._replace(projection_DP=draw(D, P))
  if name == "layer_norm_lstm":
    kernels = kernels._replace(vectors=(draw(columns), draw(D), draw(D)))
  if not with_input_kernel:
    kernels = kernels._replace(input_EZ=None, bias_Z=None)
  state = (draw(B, width), draw(B, D))[: cell.num_states]
  cotangents = draw(B, T, width), tuple(jax.tree.map(jnp.cos, state))
  flags = [jnp.array(rng.random((B, T)) < share, dtype) for share in (0.3, 0.7)]
  x = draw(B, T, E if with_input_kernel else columns)
  return cell, (x, kernels, state), flags, cotangents


def with_gradients(function, arguments, cotangents):
  @jax.jit
  def both(arguments, cotangents):
    out, vjp = jax.vjp(function, *arguments)
    return out, vjp(cotangents)

  return both(arguments, cotangents)


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize(
  ("name", "options"),
  [
    *((name, {}) for name in CELLS),
    ("gru", dict(with_recurrent_bias=True)),
    ("lstm", dict(with_projection=True)),
    ("layer_norm_lstm", dict(with_projection=True, with_input_kernel=False)),
  ],
)
def test_values_and_gradients_equal_autodiff(name, options, flagged):
  with jax.enable_x64(True):
    cell, arguments, flags, cotangents = example(name, **options)
    flags = flags if flagged else (None, None)
    functions = (
      lambda *a: scan_layer(cell, *a, *flags),
      lambda *a: plain_scan(name, *a, *flags),
    )
    pairs = [with_gradients(f, arguments, cotangents) for f in functions]
    for a, b in zip(*map(jax.tree.leaves, pairs), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CELLS)
def test_inputs_projected_at_once_equal_those_projected_in_steps(
  name, monkeypatch
):
  cell, arguments, flags, cotangents = example(name, jnp.float32)
  results = []
  for platform in ("gpu", "cpu"):
    monkeypatch.setattr(jax, "default_backend", lambda p=platform: p)
    run = lambda *a: scan_layer(cell, *a, *flags)  # noqa: E731
    results.append(with_gradients(run, arguments, cotangents))
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_kernels_may_be_given_turned(name):
  cell, (x, kernels, state), (resets, mask), _ = example(
    name, jnp.float32, with_projection="lstm" in name
  )
  turned = jax.tree.map(lambda leaf: leaf.T, kernels)
  for steps in (T, 1):  # a single step is made without copies of kernels
    inputs = x[:, :steps], resets[:, :steps], mask[:, :steps]
    one = scan_layer(cell, inputs[0], kernels, state, *inputs[1:])
    other = scan_layer(cell, inputs[0], turned, state, *inputs[1:], True)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_two_halves_equal_the_whole(name):
  cell, (x, kernels, state), (resets, _), _ = example(name, jnp.float32)
  whole, last = scan_layer(cell, x, kernels, state, resets)
  first, middle = scan_layer(cell, x[:, :2], kernels, state, resets[:, :2])
  second, end = scan_layer(cell, x[:, 2:], kernels, middle, resets[:, 2:])
  np.testing.assert_allclose(
    whole, jnp.concatenate([first, second], 1), atol=1e-6
  )
  for a, b in zip(last, end, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_a_reset_forgets_everything_before(name):
  cell, (x, kernels, state), _, _ = example(name, jnp.float32)
  resets = jnp.zeros((B, T)).at[:, 2].set(1.0)
  hidden, _ = scan_layer(cell, x, kernels, state, resets)
  zeros = jax.tree.map(jnp.zeros_like, state)
  fresh, _ = scan_layer(cell, x[:, 2:], kernels, zeros)
  np.testing.assert_allclose(hidden[:, 2:], fresh, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_padding_changes_neither_state_nor_gradient(name):
  cell, (x, kernels, state), _, (_, dstate) = example(name, jnp.float32)
  mask = jnp.arange(T)[None] < jnp.array([[3], [5]])

  def last(x, kernels):
    return scan_layer(cell, x, kernels, state, mask_BT=mask)[1]

  end, vjp = jax.vjp(last, x, kernels)
  short = tuple(leaf[:1] for leaf in state)
  alone = scan_layer(cell, x[:1, :3], kernels, short)[1]
  for a, b in zip(end, alone, strict=True):
    np.testing.assert_allclose(a[:1], b, atol=1e-6)
  dx, _ = vjp(dstate)
  assert not dx[0, 3:].any() and dx[0, :3].all()


@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_matmuls_keep_a_float32_state(name):
  cell, (x, kernels, state), _, (dhidden, _) = example(name, jnp.float32)

  def run(dtype):
    def loss(x, kernels):
      hidden, last = scan_layer(cell, x.astype(dtype), kernels, state)
      return jnp.sum(hidden.astype(jnp.float32) * dhidden), (hidden, last)

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernels)

  exact_grads, (exact, _) = run(jnp.float32)
  grads, (hidden, last) = run(jnp.bfloat16)
  assert hidden.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in last} == {jnp.dtype("float32")}
  assert 0 < np.abs(exact - hidden.astype(jnp.float32)).max() < 0.05
  for a, b in zip(*map(jax.tree.leaves, (exact_grads, grads)), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=0.04 * np.abs(a).max())


@pytest.mark.parametrize(
  "name", ["rnn", "relu_rnn", "gru", "lstm", "projected_lstm"]
)
def test_parity_with_pytorch(name):
  """Outputs, states and gradients; golden/make_recurrent.py made them."""
  golden = dict(np.load(GOLDEN / f"{name}.npz"))
  cell = CELLS[name.removeprefix("projected_")]
  leaves = {k: v for k, v in golden.items() if f"d_{k}" in golden}

  def run(leaves):
    biases = (leaves["bias_ih_l0"], leaves["bias_hh_l0"])
    kernels = Kernels(
      leaves["weight_ih_l0"].T,
      leaves["weight_hh_l0"].T,
      *(biases if name == "gru" else [sum(biases)]),
    )
    if name == "projected_lstm":
      kernels = kernels._replace(projection_DP=leaves["weight_hr_l0"].T)
    state = tuple(leaves[key][0] for key in "hc" if key in leaves)
    output, last = scan_layer(cell, leaves["x"], kernels, state)
    loss = jnp.sum(output * jnp.cos(output))
    loss += sum(jnp.sum(leaf**2) for leaf in last)
    return loss, {"output": output, **dict(zip(("h", "c"), last, strict=False))}

  gradients, results = jax.grad(run, has_aux=True)(leaves)
  for key, value in results.items():
    expected = golden["output"] if key == "output" else golden[f"last_{key}"][0]
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
  for key, value in gradients.items():
    np.testing.assert_allclose(
      value, golden[f"d_{key}"], rtol=1e-4, atol=1e-4, err_msg=key
    )


def test_the_layout_for_cudnn_is_that_of_its_reference():
  from jax.experimental import rnn

  _, (x, kernels, (h, c)), _, _ = example("lstm", jnp.float32)
  ours, (h_last, c_last) = scan_layer(CELLS["lstm"], x, kernels, (h, c))
  weights = rnn.unpack_lstm_weights(pack(kernels), E, D, 1, False)
  lengths = jnp.full(B, T, jnp.int32)
  theirs, h_ref, c_ref = rnn.lstm_ref(
    x, h[None], c[None], *weights, lengths, E, D, 1, 0.0, False
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  np.testing.assert_allclose(h_last, h_ref[0], atol=1e-5)
  np.testing.assert_allclose(c_last, c_ref[0], atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs cuDNN")
def test_cudnn_equals_the_scan():
  from lmjax.ops.cudnn_lstm import cudnn_layer

  cell, arguments, _, cotangents = example("lstm", jnp.float32)
  ours, our_vjp = jax.vjp(lambda *a: scan_layer(cell, *a), *arguments)
  theirs, vjp = jax.vjp(cudnn_layer, *arguments)
  pairs = (ours, our_vjp(cotangents)), (theirs, vjp(cotangents))
  for a, b in zip(*map(jax.tree.leaves, pairs), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)
