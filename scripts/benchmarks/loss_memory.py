# SPDX-License-Identifier: Apache-2.0
"""Memory of a language model's loss and its gradients."""

import importlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.lmjax_contender import environment, peak_bytes
from benchmarks.memory import peak_resident_bytes, resident_bytes
from lmjax import platform
from lmjax.losses import cross_entropy

__all__ = ["make", "peak_bytes"]

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def make(work: dict, folder: Path) -> "LossMemory":
  """Prepare the machine as the command lines do, then the work."""
  del folder
  platform.start()
  return LossMemory(**work)


def plain(hidden_BTD: jax.Array, table_VD: jax.Array, targets_BT: jax.Array):
  """Sum the loss over logits that are there all at once."""
  logits_BTV = jnp.matmul(
    hidden_BTD, table_VD.T, preferred_element_type=jnp.float32
  )
  return cross_entropy(logits_BTV, targets_BT).sum()


def chunked(hidden_BTD: jax.Array, table_VD: jax.Array, targets_BT: jax.Array):
  """Sum the loss whose logits are never stored."""
  module = importlib.import_module("lmjax.ops.linear_cross_entropy")
  weights_BT = jnp.ones(targets_BT.shape, jnp.float32)
  return module.linear_cross_entropy(
    hidden_BTD, table_VD, targets_BT, weights_BT
  ).loss


FORMS: dict[str, Loss] = {
  "cross_entropy": plain,
  "linear_cross_entropy": chunked,
}


class LossMemory:
  """The loss and its gradients for hidden vectors and table, float32.

  Args:
    form: one of FORMS.
    measure: "compiled" for the temporary arrays of the compiled program,
      "resident" for what the process, or the GPU, takes to run it.
    batch_size: rows B.
    seq_len: tokens T of a row.
    width: width D of the hidden vectors.
    vocab_size: number of tokens V.
  """

  def __init__(
    self,
    form: str,
    measure: str,
    batch_size: int,
    seq_len: int,
    width: int,
    vocab_size: int,
  ):
    key = jax.random.key(0)
    self._arguments = (
      jax.random.normal(key, (batch_size, seq_len, width)),
      0.02 * jax.random.normal(key, (vocab_size, width)),
      jax.random.randint(key, (batch_size, seq_len), 0, vocab_size),
    )
    gradient = jax.jit(jax.value_and_grad(FORMS[form], argnums=(0, 1)))
    self._compiled = gradient.lower(*self._arguments).compile()
    self._measure = measure
    self.facts = dict(environment=environment())

  def run(self, count: int) -> float:
    """Return bytes; a process can tell once what it takes."""
    del count
    if self._measure == "compiled":
      return self._compiled.memory_analysis().temp_size_in_bytes
    stats = jax.block_until_ready(self._arguments)[0].device.memory_stats()
    before = stats["bytes_in_use"] if stats else resident_bytes()
    jax.block_until_ready(self._compiled(*self._arguments))
    return (peak_bytes() if stats else peak_resident_bytes()) - before
