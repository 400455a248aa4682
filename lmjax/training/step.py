# SPDX-License-Identifier: Apache-2.0
"""The training step: a pure function of (state, batch).

It knows no devices: `all_reduce` sums over whatever holds the other rows of the
batch, and is the identity where one program sees all of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lmjax.metrics.sums import Sums
from lmjax.tasks.task import Outcome, Task
from lmjax.train_state import ModelState, TrainState
from lmjax.types import Array, Batch, PyTree

AllReduce = Callable[[PyTree], PyTree]
RNG_STREAMS = ("dropout",)


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  task: Task,
  optimizer: optax.GradientTransformationExtraArgs,
  num_microbatches: int,
  all_reduce: AllReduce,
) -> tuple[TrainState, Sums]:
  """Update the parameters once.

  Args:
    state: the state before the step.
    batch: arrays by name, rows first.
    task: computes the sums of a batch.
    optimizer: an Optax transform; it is given the training loss as `value` and
      the gradient norm as `grad_norm`.
    num_microbatches: parts of the batch whose gradients are accumulated.
    all_reduce: sums over devices.

  Returns:
    The new state, and the sums over the whole batch. Among the metrics is the
    norm of the mean gradient before clipping, "grad_norm".
  """
  grads, outcome = grad_and_outcome(state, batch, task, num_microbatches)
  grads, sums = all_reduce((grads, outcome.sums))
  collections, carry = outcome.model_state
  scale = 1.0 / jnp.maximum(sums.weight, 1e-9)
  grad_norm = scale * optax.tree.norm(grads)
  grads = jax.tree.map(lambda leaf: leaf * scale, grads)
  updates, opt_state = optimizer.update(
    grads,
    state.opt_state,
    state.params,
    value=sums.loss * scale,
    grad_norm=grad_norm,
  )
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    collections=mean_over_devices(collections, all_reduce),
    carry=jax.lax.stop_gradient(carry),  # truncated backpropagation
  )
  return state, sums.with_mean("grad_norm", grad_norm)


def eval_step(
  state: TrainState, batch: Batch, *, task: Task, all_reduce: AllReduce
) -> tuple[TrainState, Sums]:
  """Compute the sums of a batch without an update; only the carry changes."""
  outcome = task.loss(state.params, state.model_state, batch, {}, train=False)
  carry = outcome.model_state.carry
  return state.replace(carry=carry), all_reduce(outcome.sums)


def grad_and_outcome(
  state: TrainState, batch: Batch, task: Task, num_microbatches: int
) -> tuple[PyTree, Outcome]:
  """Accumulate gradients and sums over microbatches, one after the other.

  Activations take the memory of one microbatch. Collections pass from one to
  the next; each has its own rows of the carry, and its own key.
  """

  def objective(params, model_state, rows, key):
    outcome = task.loss(params, model_state, rows, step_rngs(key), train=True)
    return outcome.sums.loss, outcome

  def grad(collections, rows, carry, key):
    grads, outcome = jax.grad(objective, has_aux=True)(
      state.params, ModelState(collections, carry), rows, key
    )
    # bfloat16 gradients would lose small microbatches when they are added up.
    return jax.tree.map(lambda g: g.astype(jnp.float32), grads), outcome

  key = jax.random.fold_in(state.key, state.step)
  if num_microbatches == 1:
    return grad(state.collections, batch, state.carry, key)

  def split(leaf: Array) -> Array:
    """Take every num_microbatches-th row.

    Rows are sharded in blocks; this way every microbatch has rows of every
    device, and splitting moves no data.
    """
    dealt = leaf.reshape(-1, num_microbatches, *leaf.shape[1:])
    return jnp.swapaxes(dealt, 0, 1)

  def join(leaf: Array) -> Array:
    return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

  def add_part(total, part):
    grads, sums, collections = total
    new_grads, outcome = grad(collections, *part)
    grads = jax.tree.map(jnp.add, grads, new_grads)
    collections, carry = outcome.model_state
    return (grads, sums.plus(outcome.sums), collections), carry

  parts = (
    jax.tree.map(split, dict(batch)),
    jax.tree.map(split, state.carry),
    jax.random.split(key, num_microbatches),
  )
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  shapes, outcome = jax.eval_shape(grad, state.collections, *first)
  zeros = jax.tree.map(
    lambda shape: jnp.zeros(shape.shape, shape.dtype), (shapes, outcome.sums)
  )
  (grads, sums, collections), carry = jax.lax.scan(
    add_part, (*zeros, state.collections), parts
  )
  carry = jax.tree.map(join, carry)
  return grads, Outcome(sums, ModelState(collections, carry))


def step_rngs(key: Array) -> dict[str, Array]:
  """Derive the PRNG key of each stream."""
  return {
    name: jax.random.fold_in(key, index)
    for index, name in enumerate(RNG_STREAMS)
  }


def mean_over_devices(tree: PyTree, all_reduce: AllReduce) -> PyTree:
  """Average floating-point leaves over devices; counters are equal on all."""
  count = all_reduce(jnp.ones(()))

  def mean(leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return leaf
    return (all_reduce(leaf) / count).astype(leaf.dtype)

  return jax.tree.map(mean, tree)
