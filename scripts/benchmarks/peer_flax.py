# SPDX-License-Identifier: Apache-2.0
"""Flax's own recurrent layers as its users run them, without lmjax."""

import importlib.metadata
import itertools
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import parameters
from benchmarks.memory import peak_resident_bytes
from benchmarks.workload import LEARNING_RATE, NUM_COMPARED, Workload


def make(work: dict, folder: Path) -> "Train":
  """Prepare the work."""
  return Train(Workload(**work), folder)


def peak_bytes() -> int:
  """Return the peak memory of the device, or of the process on a CPU."""
  stats = jax.devices()[0].memory_stats()
  return stats["peak_bytes_in_use"] if stats else peak_resident_bytes()


class LSTM(nn.Module):
  """nn.RNN between an embedding and a dense layer."""

  work: Workload

  @nn.compact
  def __call__(self, tokens_BT: jax.Array) -> jax.Array:
    """Return logits, [B, T, V]."""
    work, dtype = self.work, jnp.dtype(self.work.dtype)
    x_BTD = nn.Embed(
      work.vocab_size, work.embedding_width, dtype=dtype, name="embedding"
    )(tokens_BT)
    for index in range(work.num_layers):
      cell = nn.OptimizedLSTMCell(
        work.width, dtype=dtype, name=f"layer_{index}"
      )
      x_BTD = nn.RNN(cell, name=f"rnn_{index}")(x_BTD)
    return nn.Dense(work.vocab_size, dtype=dtype, name="output")(x_BTD)


class Train:
  """A jitted train step with Adam at its defaults.

  Args:
    work: what is trained.
    folder: where the first weights and batches lie.
  """

  def __init__(self, work: Workload, folder: Path):
    model, optimizer = LSTM(work), optax.adam(LEARNING_RATE)
    batches = parameters.load_batches(folder)
    self._batches = itertools.cycle(batches)
    given = from_lmjax(parameters.load(folder), work.num_layers)
    made = jax.eval_shape(model.init, jax.random.key(0), batches[0][0])
    check_alike(given, made["params"])
    self._state = jax.device_put((given, optimizer.init(given)))

    def loss_of(params, inputs_BT, targets_BT):
      logits_BTV = model.apply({"params": params}, inputs_BT)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits_BTV.astype(jnp.float32), targets_BT
      ).mean()

    def step(state, inputs_BT, targets_BT):
      params, moments = state
      loss, grads = jax.value_and_grad(loss_of)(params, inputs_BT, targets_BT)
      updates, moments = optimizer.update(grads, moments, params)
      return (optax.apply_updates(params, updates), moments), loss

    self._compiled = jax.jit(step, donate_argnums=0)
    losses = [float(self._step()) for _ in range(NUM_COMPARED)]
    self.facts = dict(environment=environment(), losses=losses)

  def _step(self) -> jax.Array:
    self._state, loss = self._compiled(self._state, *next(self._batches))
    return loss

  def run(self, count: int) -> float:
    """Time steps; return seconds of one."""
    began = time.perf_counter()
    for _ in range(count):
      self._step()
    jax.block_until_ready(self._state)
    return (time.perf_counter() - began) / count


def from_lmjax(given: parameters.Parameters, num_layers: int) -> dict:
  """Sort weights of lmjax into Flax's tree: a kernel a gate."""
  params = {
    "embedding": {"embedding": given["embedding/embedding"]},
    "output": {
      "kernel": given["output/table"].T,
      "bias": given["output/bias"],
    },
  }
  for index in range(num_layers):
    kinds = ("input_kernel", "recurrent_kernel", "bias")
    gates = zip(
      *(np.split(given[f"layer_{index}/{kind}"], 4, -1) for kind in kinds),
      strict=True,
    )
    cell = {}
    for gate, (kernel, recurrent, bias) in zip("ifgo", gates, strict=True):
      cell[f"i{gate}"] = {"kernel": kernel}
      cell[f"h{gate}"] = {"kernel": recurrent, "bias": bias}
    params[f"layer_{index}"] = cell
  return params


def check_alike(given: dict, made: dict) -> None:
  """See that two trees have the same names and shapes."""
  shapes = [jax.tree.map(lambda leaf: leaf.shape, t) for t in (given, made)]
  if shapes[0] != shapes[1]:
    raise ValueError(f"weights {shapes[0]} are not those of {shapes[1]}")


def environment() -> dict:
  """Name versions and devices."""
  names = ("jax", "jaxlib", "flax", "optax")
  return dict(
    versions={name: importlib.metadata.version(name) for name in names},
    devices=[device.device_kind for device in jax.devices()],
  )
