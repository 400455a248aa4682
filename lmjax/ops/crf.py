# SPDX-License-Identifier: Apache-2.0
"""Linear-chain conditional random fields over the tags of a text.

Lafferty, McCallum & Pereira 2001. A path, a tag a token, scores

    sum over t of scores[t, tag[t]] + transitions[tag[t-1], tag[t]]

and is as likely as the exponential of that, divided by the sum of all paths'.
Transitions are a table [Z, Z] with Z = C + 1: its last row and column are for
the start and the end of a text. All is computed in float32 at least.

Masks are True at tokens and False at the padding after them.
"""

import jax
import jax.numpy as jnp

from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import wide
from lmjax.types import Array

NEVER = -1e4  # nats, of a transition that cannot be


def constrained(transitions_YY: Array, allowed_YY: Array) -> Array:
  """Let no path of any weight use the transitions that are not allowed."""
  return jnp.where(allowed_YY, transitions_YY, NEVER)


def path_score(
  scores_BTY: Array, tags_BT: Array, mask_BT: Array, transitions_YY: Array
) -> Array:
  """Score one path of each text, float32 [B]."""
  outside = scores_BTY.shape[-1]
  scores_BT1 = jnp.take_along_axis(scores_BTY, tags_BT[..., None], axis=-1)
  tags_BT = jnp.where(mask_BT, tags_BT, outside)
  before = jnp.pad(tags_BT, ((0, 0), (1, 0)), constant_values=outside)
  after = jnp.pad(tags_BT, ((0, 0), (0, 1)), constant_values=outside)
  dtype = wide(scores_BTY.dtype)
  moves = transitions_YY.astype(dtype)[before, after]
  moves = jnp.where((before == outside) & (after == outside), 0.0, moves)
  scores_BT = jnp.where(mask_BT, scores_BT1[..., 0].astype(dtype), 0.0)
  return scores_BT.sum(axis=1) + moves.sum(axis=1)


def log_partition(
  scores_BTY: Array, mask_BT: Array, transitions_YY: Array
) -> Array:
  """Return the log of the sum over all paths of each text, float32 [B].

  Its gradient in the scores are the marginals, and in the transitions how often
  each is expected.
  """

  def own_rows(rows, transitions_YY):
    scores_BTY, mask_BT = rows
    scores_TBY = jnp.swapaxes(scores_BTY, 0, 1)
    return _log_partition(scores_TBY, mask_BT.T, transitions_YY)

  dtype = wide(scores_BTY.dtype)
  rows = scores_BTY.astype(dtype), mask_BT
  return on_own_rows(own_rows, rows, transitions_YY.astype(dtype))


def _forward(scores_TBY, mask_TB, transitions_YY):
  """Return the log sum of all beginnings that end in each tag, [T, B, C]."""
  between_YY = transitions_YY[:-1, :-1]
  first_BY = transitions_YY[-1:, :-1] + scores_TBY[0]

  def step(sums_BY, inputs):
    scores_BY, mask_B = inputs
    joined_BY = jax.nn.logsumexp(sums_BY[:, :, None] + between_YY[None], axis=1)
    new_BY = jnp.where(mask_B[:, None], joined_BY + scores_BY, sums_BY)
    return new_BY, new_BY

  _, sums_TBY = jax.lax.scan(step, first_BY, (scores_TBY[1:], mask_TB[1:]))
  return jnp.concatenate([first_BY[None], sums_TBY])


def _ends(sums_BY, transitions_YY):
  return jax.nn.logsumexp(sums_BY + transitions_YY[None, :-1, -1], axis=-1)


@jax.custom_vjp
def _log_partition(scores_TBY, mask_TB, transitions_YY):
  return _fwd(scores_TBY, mask_TB, transitions_YY)[0]


def _fwd(scores_TBY, mask_TB, transitions_YY):
  sums_TBY = _forward(scores_TBY, mask_TB, transitions_YY)
  log_sum_B = _ends(sums_TBY[-1], transitions_YY)
  return log_sum_B, (scores_TBY, mask_TB, transitions_YY, sums_TBY, log_sum_B)


def _bwd(saved, slopes_B):
  """Go back from the marginals of a token to those of the one before.

  How likely a tag is, given the next one and all scores up to there, is what
  it has of the sum over beginnings there: no exponential is above 1.
  """
  scores_TBY, mask_TB, transitions_YY, sums_TBY, log_sum_B = saved
  between_YY = transitions_YY[:-1, :-1]
  ends_BY = sums_TBY[-1] + transitions_YY[None, :-1, -1] - log_sum_B[:, None]
  last_BY = jnp.exp(ends_BY) * slopes_B[:, None]

  def step(carry, inputs):
    marginal_BY, pairs_YY = carry
    before_BY, after_BY, scores_BY, mask_B = inputs
    given_BYY = jnp.exp(
      before_BY[:, :, None]
      + between_YY[None]
      + (scores_BY - after_BY)[:, None, :]
    )
    both_BYY = given_BYY * marginal_BY[:, None, :]
    both_BYY = jnp.where(mask_B[:, None, None], both_BYY, 0.0)
    own_BY = jnp.where(mask_B[:, None], marginal_BY, 0.0)
    earlier_BY = jnp.where(mask_B[:, None], both_BYY.sum(axis=2), marginal_BY)
    return (earlier_BY, pairs_YY + both_BYY.sum(axis=0)), own_BY

  steps = (sums_TBY[:-1], sums_TBY[1:], scores_TBY[1:], mask_TB[1:])
  carry = last_BY, jnp.zeros_like(between_YY)
  (first_BY, pairs_YY), later_TBY = jax.lax.scan(
    step, carry, steps, reverse=True
  )
  marginals_TBY = jnp.concatenate([first_BY[None], later_TBY])
  dtransitions_YY = jnp.zeros_like(transitions_YY)
  dtransitions_YY = dtransitions_YY.at[:-1, :-1].set(pairs_YY)
  dtransitions_YY = dtransitions_YY.at[-1, :-1].set(first_BY.sum(axis=0))
  dtransitions_YY = dtransitions_YY.at[:-1, -1].set(last_BY.sum(axis=0))
  return marginals_TBY, None, dtransitions_YY


_log_partition.defvjp(_fwd, _bwd)


def marginals(
  scores_BTY: Array, mask_BT: Array, transitions_YY: Array
) -> Array:
  """Return how likely each tag of each token is, float32 [B, T, C].

  They sum to one, whatever was lost to rounding over a long text; those of
  padding to zero.
  """

  def total(scores_BTY: Array) -> Array:
    return log_partition(scores_BTY, mask_BT, transitions_YY).sum()

  slopes_BTY = jax.grad(total)(scores_BTY.astype(wide(scores_BTY.dtype)))
  sums_BT1 = slopes_BTY.sum(axis=-1, keepdims=True)
  return slopes_BTY / jnp.where(sums_BT1 > 0, sums_BT1, 1.0)


def viterbi(scores_BTY: Array, mask_BT: Array, transitions_YY: Array) -> Array:
  """Return the path that scores highest, int32 [B, T] (Viterbi 1967).

  On padding it repeats the last tag.
  """
  dtype = wide(scores_BTY.dtype)
  rows = scores_BTY.astype(dtype), mask_BT
  return on_own_rows(_viterbi, rows, transitions_YY.astype(dtype))


def _viterbi(rows, transitions_YY):
  scores_TBY, mask_TB = (jnp.swapaxes(leaf, 0, 1) for leaf in rows)
  between_YY = transitions_YY[:-1, :-1]
  first_BY = transitions_YY[-1:, :-1] + scores_TBY[0]
  stay_1Y = jnp.arange(len(between_YY))[None]

  def forward(best_BY, inputs):
    scores_BY, mask_B1 = inputs[0], inputs[1][:, None]
    joined_BYY = best_BY[:, :, None] + between_YY[None]
    new_BY = joined_BYY.max(axis=1) + scores_BY
    from_BY = jnp.where(mask_B1, joined_BYY.argmax(axis=1), stay_1Y)
    return jnp.where(mask_B1, new_BY, best_BY), from_BY

  best_BY, from_TBY = jax.lax.scan(
    forward, first_BY, (scores_TBY[1:], mask_TB[1:])
  )
  last_B = jnp.argmax(best_BY + transitions_YY[None, :-1, -1], axis=-1)

  def backward(tag_B, from_BY):
    tag_B1 = jnp.take_along_axis(from_BY, tag_B[:, None], axis=1)
    return tag_B1[:, 0], tag_B

  first_B, later_TB = jax.lax.scan(backward, last_B, from_TBY, reverse=True)
  return jnp.concatenate([first_B[None], later_TB]).T.astype(jnp.int32)
