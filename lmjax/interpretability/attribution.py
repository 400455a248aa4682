# SPDX-License-Identifier: Apache-2.0
"""What each token of a text adds to a score, by gradients at its embedding.

A score is a function of embeddings, [B, T, E] to [B], row by row. `reading`
makes one of any model: it puts embeddings where the model looks tokens up.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.layers.embeddings import TokenEmbedding
from lmjax.types import Array, PyTree

Score = Callable[[Array], Array]


def look_up(params: PyTree, tokens_BT: Array) -> Array:
  """Return the embeddings of tokens, float32 [B, T, E]."""
  table_VE = params["embedding"]["embedding"]
  return jnp.take(table_VE, tokens_BT, axis=0).astype(jnp.float32)


@contextlib.contextmanager
def reading(x_BTE: Array) -> Iterator[None]:
  """Let models read these embeddings, whatever tokens they are called with."""

  def put(
    method: Callable[..., Any],
    arguments: tuple,
    options: dict[str, Any],
    max_context: nn.module.InterceptorContext,
  ) -> Any:
    module, name = max_context.module, max_context.method_name
    if isinstance(module, TokenEmbedding) and name == "__call__":
      return x_BTE.astype(module.dtype)
    return method(*arguments, **options)

  with nn.intercept_methods(put):
    yield


def gradients(score: Score, x_BTE: Array) -> Array:
  """Return the gradient of each row's score, [B, T, E]."""
  return jax.grad(lambda x: jnp.sum(score(x)))(x_BTE)


def norms(gradients_BTE: Array) -> Array:
  """Return how strongly each token could move the score, [B, T].

  The norm of the gradient (Li et al. 2016, arXiv:1506.01066); never negative.
  """
  return jnp.linalg.norm(gradients_BTE, axis=-1)


def gradient_times_input(gradients_BTE: Array, x_BTE: Array) -> Array:
  """Return gradient · embedding of each token, [B, T].

  To first order what the score loses where the embedding becomes 0 (Shrikumar
  et al. 2016, arXiv:1605.01713).
  """
  return jnp.sum(gradients_BTE * x_BTE, axis=-1)


def integrated_gradients(
  score: Score, x_BTE: Array, num_points: int = 64
) -> Array:
  """Return each token's part in the score, [B, T].

  Sundararajan et al. 2017 (arXiv:1703.01365), from embeddings of 0 on: the
  parts add up to score(x) − score(0), up to the error of the integral, which is
  by the rule of Gauss and Legendre.

  Args:
    score: see above.
    x_BTE: embeddings.
    num_points: how many points between 0 and x the gradient is taken at.
  """
  points, weights = np.polynomial.legendre.leggauss(num_points)
  shares = jnp.array((points + 1.0) / 2.0, x_BTE.dtype)  # [−1, 1] to [0, 1]
  weights = jnp.array(weights / 2.0, x_BTE.dtype)

  def add(total_BTE: Array, point: tuple[Array, Array]) -> tuple[Array, None]:
    share, weight = point
    return total_BTE + weight * gradients(score, share * x_BTE), None

  mean_BTE, _ = jax.lax.scan(add, jnp.zeros_like(x_BTE), (shares, weights))
  return jnp.sum(mean_BTE * x_BTE, axis=-1)
