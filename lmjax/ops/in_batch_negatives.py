# SPDX-License-Identifier: Apache-2.0
"""Learning what goes together from what else is in the batch.

Rows of a batch are pairs, and scores_BB[i, j] says how well the first of pair i
goes with the second of pair j. What is on the diagonal is right; what is marked
in negatives_BB is wrong; the rest counts as neither.
"""

import jax
import jax.numpy as jnp

from lmjax.types import Array

_NEVER = -1e30


def same_texts(tokens_BT: Array, mask_BT: Array) -> Array:
  """Find the rows that have the same tokens, bool [B, B]."""
  tokens_BT = jnp.where(mask_BT, tokens_BT, -1)
  return jnp.all(tokens_BT[:, None] == tokens_BT[None], axis=-1)


def negatives(same_BB: Array, weights_B: Array) -> Array:
  """Say which rows may be a wrong answer to each, bool [B, B].

  Args:
    same_BB: true where both firsts or both seconds are the same text.
    weights_B: rows of weight 0 fill up a batch and are no answer to any.
  """
  return ~same_BB & (weights_B > 0)[None]


def contrastive_loss(scores_BB: Array, negatives_BB: Array) -> Array:
  """Tell the right one from all wrong ones, both ways: nats, [B].

  The mean of two cross-entropies: of the second among those of the batch given
  the first, and of the first given the second (InfoNCE; van den Oord et al.
  2018, arXiv:1807.03748; both ways as in Radford et al. 2021,
  arXiv:2103.00020).
  """

  def one_way(scores_BB: Array) -> Array:
    allowed_BB = negatives_BB | jnp.eye(len(scores_BB), dtype=bool)
    normalizer_B = jax.nn.logsumexp(
      jnp.where(allowed_BB, scores_BB, _NEVER), axis=1
    )
    return normalizer_B - jnp.diagonal(scores_BB)

  return (one_way(scores_BB) + one_way(scores_BB.T)) / 2


def triplet_loss(
  scores_BB: Array, negatives_BB: Array, margin: float, hardest: bool
) -> Array:
  """Put the right one a margin above the wrong ones, both ways: [B].

  Args:
    scores_BB: see above.
    negatives_BB: see above.
    margin: by how much it is to be above.
    hardest: whether only the best wrong one counts; else the mean over all
      (Hermans et al. 2017, arXiv:1703.07737).
  """

  def one_way(scores_BB: Array) -> Array:
    wrong_BB = jnp.where(negatives_BB, scores_BB, _NEVER)
    right_B1 = jnp.diagonal(scores_BB)[:, None]
    if hardest:
      wrong_B1 = wrong_BB.max(axis=1, keepdims=True)
      return jax.nn.relu(margin + wrong_B1 - right_B1)[:, 0]
    losses_BB = jax.nn.relu(margin + wrong_BB - right_B1)
    number_B = jnp.maximum(negatives_BB.sum(axis=1), 1)
    return losses_BB.sum(axis=1) / number_B

  return (one_way(scores_BB) + one_way(scores_BB.T)) / 2


def found(scores_BB: Array, negatives_BB: Array) -> Array:
  """Say whether the right second is above all wrong ones, bool [B]."""
  wrong_BB = jnp.where(negatives_BB, scores_BB, _NEVER)
  return jnp.diagonal(scores_BB) > wrong_BB.max(axis=1)
