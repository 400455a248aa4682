# SPDX-License-Identifier: Apache-2.0
"""One step as a pure function of (state, batch).

Nothing here knows devices: `all_reduce` adds up over whatever holds the other
rows of the batch, and is the identity where one program sees all of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lmjax.metrics.sums import Sums
from lmjax.tasks.task import Outcome, Task
from lmjax.train_state import TrainState
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
  """Make one update.

  Returns:
    The new state, and the sums over the whole batch with the mean gradient's
    norm, before clipping, among the metrics.
  """
  grads, outcome = grad_and_outcome(state, batch, task, num_microbatches)
  grads, sums = all_reduce((grads, outcome.sums))
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
    collections=mean_over_devices(outcome.collections, all_reduce),
    carry=jax.lax.stop_gradient(outcome.carry),
  )
  return state, sums.with_mean("grad_norm", grad_norm)


def eval_step(
  state: TrainState, batch: Batch, *, task: Task, all_reduce: AllReduce
) -> tuple[TrainState, Sums]:
  """Sum over a batch without learning; the carry moves on."""
  outcome = task.loss(
    state.params, state.collections, state.carry, batch, {}, train=False
  )
  return state.replace(carry=outcome.carry), all_reduce(outcome.sums)


def grad_and_outcome(
  state: TrainState, batch: Batch, task: Task, num_microbatches: int
) -> tuple[PyTree, Outcome]:
  """Add up gradients and sums over equal parts of the batch, one by one.

  Activations take the memory of one part. Collections pass from part to part;
  each part has its own rows of the carry, and its own key.
  """

  def objective(params, collections, carry, rows, key):
    rngs = step_rngs(key)
    outcome = task.loss(params, collections, carry, rows, rngs, train=True)
    return outcome.sums.loss, outcome

  def grad(collections, rows, carry, key):
    grads, outcome = jax.grad(objective, has_aux=True)(
      state.params, collections, carry, rows, key
    )
    return jax.tree.map(lambda g: g.astype(jnp.float32), grads), outcome

  key = jax.random.fold_in(state.key, state.step)
  if num_microbatches == 1:
    return grad(state.collections, batch, state.carry, key)

  def split(leaf: Array) -> Array:
    """Deal rows out in turn, so that every part has some of each device's."""
    dealt = leaf.reshape(-1, num_microbatches, *leaf.shape[1:])
    return jnp.swapaxes(dealt, 0, 1)

  def join(leaf: Array) -> Array:
    return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

  def add_part(total, part):
    grads, sums, collections = total
    new_grads, outcome = grad(collections, *part)
    grads = jax.tree.map(jnp.add, grads, new_grads)
    return (grads, sums.plus(outcome.sums), outcome.collections), outcome.carry

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
  return grads, Outcome(sums, collections, carry)


def step_rngs(key: Array) -> dict[str, Array]:
  """Derive a key for each named stream of randomness."""
  return {
    name: jax.random.fold_in(key, index)
    for index, name in enumerate(RNG_STREAMS)
  }


def mean_over_devices(tree: PyTree, all_reduce: AllReduce) -> PyTree:
  """Average what each device has of its own; counters are alike on all."""
  count = all_reduce(jnp.ones(()))

  def mean(leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return leaf
    return (all_reduce(leaf) / count).astype(leaf.dtype)

  return jax.tree.map(mean, tree)
