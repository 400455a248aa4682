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


def constrained(transitions_ZZ: Array, allowed_ZZ: Array) -> Array:
  """Let no path of any weight use the transitions that are not allowed."""
  return jnp.where(allowed_ZZ, transitions_ZZ, NEVER)


def path_score(
  scores_BTC: Array, tags_BT: Array, mask_BT: Array, transitions_ZZ: Array
) -> Array:
  """Score one path of each text, float32 [B]."""
  outside = scores_BTC.shape[-1]
  scores_BT1 = jnp.take_along_axis(scores_BTC, tags_BT[..., None], axis=-1)
  tags_BT = jnp.where(mask_BT, tags_BT, outside)
  before = jnp.pad(tags_BT, ((0, 0), (1, 0)), constant_values=outside)
  after = jnp.pad(tags_BT, ((0, 0), (0, 1)), constant_values=outside)
  dtype = wide(scores_BTC.dtype)
  moves = transitions_ZZ.astype(dtype)[before, after]
  moves = jnp.where((before == outside) & (after == outside), 0.0, moves)
  scores_BT = jnp.where(mask_BT, scores_BT1[..., 0].astype(dtype), 0.0)
  return scores_BT.sum(axis=1) + moves.sum(axis=1)


def log_partition(
  scores_BTC: Array, mask_BT: Array, transitions_ZZ: Array
) -> Array:
  """Return the log of the sum over all paths of each text, float32 [B].

  Its gradient in the scores are the marginals, and in the transitions how often
  each is expected.
  """

  def own_rows(rows, transitions_ZZ):
    scores_BTC, mask_BT = rows
    scores_TBC = jnp.swapaxes(scores_BTC, 0, 1)
    return _log_partition(scores_TBC, mask_BT.T, transitions_ZZ)

  dtype = wide(scores_BTC.dtype)
  rows = scores_BTC.astype(dtype), mask_BT
  return on_own_rows(own_rows, rows, transitions_ZZ.astype(dtype))


def _forward(scores_TBC, mask_TB, transitions_ZZ):
  """Return the log sum of all beginnings that end in each tag, [T, B, C]."""
  between_CC = transitions_ZZ[:-1, :-1]
  first_BC = transitions_ZZ[-1:, :-1] + scores_TBC[0]

  def step(sums_BC, inputs):
    scores_BC, mask_B = inputs
    joined_BC = jax.nn.logsumexp(sums_BC[:, :, None] + between_CC[None], axis=1)
    new_BC = jnp.where(mask_B[:, None], joined_BC + scores_BC, sums_BC)
    return new_BC, new_BC

  _, sums_TBC = jax.lax.scan(step, first_BC, (scores_TBC[1:], mask_TB[1:]))
  return jnp.concatenate([first_BC[None], sums_TBC])


def _ends(sums_BC, transitions_ZZ):
  return jax.nn.logsumexp(sums_BC + transitions_ZZ[None, :-1, -1], axis=-1)


@jax.custom_vjp
def _log_partition(scores_TBC, mask_TB, transitions_ZZ):
  return _fwd(scores_TBC, mask_TB, transitions_ZZ)[0]


def _fwd(scores_TBC, mask_TB, transitions_ZZ):
  sums_TBC = _forward(scores_TBC, mask_TB, transitions_ZZ)
  log_sum_B = _ends(sums_TBC[-1], transitions_ZZ)
  return log_sum_B, (scores_TBC, mask_TB, transitions_ZZ, sums_TBC, log_sum_B)


def _bwd(saved, slopes_B):
  """Go back from the marginals of a token to those of the one before.

  How likely a tag is, given the next one and all scores up to there, is what
  it has of the sum over beginnings there: no exponential is above 1.
  """
  scores_TBC, mask_TB, transitions_ZZ, sums_TBC, log_sum_B = saved
  between_CC = transitions_ZZ[:-1, :-1]
  ends_BC = sums_TBC[-1] + transitions_ZZ[None, :-1, -1] - log_sum_B[:, None]
  last_BC = jnp.exp(ends_BC) * slopes_B[:, None]

  def step(carry, inputs):
    marginal_BC, pairs_CC = carry
    before_BC, after_BC, scores_BC, mask_B = inputs
    given_BCC = jnp.exp(
      before_BC[:, :, None]
      + between_CC[None]
      + (scores_BC - after_BC)[:, None, :]
    )
    both_BCC = given_BCC * marginal_BC[:, None, :]
    both_BCC = jnp.where(mask_B[:, None, None], both_BCC, 0.0)
    own_BC = jnp.where(mask_B[:, None], marginal_BC, 0.0)
    earlier_BC = jnp.where(mask_B[:, None], both_BCC.sum(axis=2), marginal_BC)
    return (earlier_BC, pairs_CC + both_BCC.sum(axis=0)), own_BC

  steps = (sums_TBC[:-1], sums_TBC[1:], scores_TBC[1:], mask_TB[1:])
  carry = last_BC, jnp.zeros_like(between_CC)
  (first_BC, pairs_CC), later_TBC = jax.lax.scan(
    step, carry, steps, reverse=True
  )
  marginals_TBC = jnp.concatenate([first_BC[None], later_TBC])
  dtransitions_ZZ = jnp.zeros_like(transitions_ZZ)
  dtransitions_ZZ = dtransitions_ZZ.at[:-1, :-1].set(pairs_CC)
  dtransitions_ZZ = dtransitions_ZZ.at[-1, :-1].set(first_BC.sum(axis=0))
  dtransitions_ZZ = dtransitions_ZZ.at[:-1, -1].set(last_BC.sum(axis=0))
  return marginals_TBC, None, dtransitions_ZZ


_log_partition.defvjp(_fwd, _bwd)


def marginals(
  scores_BTC: Array, mask_BT: Array, transitions_ZZ: Array
) -> Array:
  """Return how likely each tag of each token is, float32 [B, T, C].

  They sum to one, whatever was lost to rounding over a long text; those of
  padding to zero.
  """

  def total(scores_BTC: Array) -> Array:
    return log_partition(scores_BTC, mask_BT, transitions_ZZ).sum()

  slopes_BTC = jax.grad(total)(scores_BTC.astype(wide(scores_BTC.dtype)))
  sums_BT1 = slopes_BTC.sum(axis=-1, keepdims=True)
  return slopes_BTC / jnp.where(sums_BT1 > 0, sums_BT1, 1.0)


def viterbi(scores_BTC: Array, mask_BT: Array, transitions_ZZ: Array) -> Array:
  """Return the path that scores highest, int32 [B, T] (Viterbi 1967).

  On padding it repeats the last tag.
  """
  dtype = wide(scores_BTC.dtype)
  rows = scores_BTC.astype(dtype), mask_BT
  return on_own_rows(_viterbi, rows, transitions_ZZ.astype(dtype))


def _viterbi(rows, transitions_ZZ):
  scores_TBC, mask_TB = (jnp.swapaxes(leaf, 0, 1) for leaf in rows)
  between_CC = transitions_ZZ[:-1, :-1]
  first_BC = transitions_ZZ[-1:, :-1] + scores_TBC[0]
  stay_1C = jnp.arange(len(between_CC))[None]

  def forward(best_BC, inputs):
    scores_BC, mask_B1 = inputs[0], inputs[1][:, None]
    joined_BCC = best_BC[:, :, None] + between_CC[None]
    new_BC = joined_BCC.max(axis=1) + scores_BC
    from_BC = jnp.where(mask_B1, joined_BCC.argmax(axis=1), stay_1C)
    return jnp.where(mask_B1, new_BC, best_BC), from_BC

  best_BC, from_TBC = jax.lax.scan(
    forward, first_BC, (scores_TBC[1:], mask_TB[1:])
  )
  last_B = jnp.argmax(best_BC + transitions_ZZ[None, :-1, -1], axis=-1)

  def backward(tag_B, from_BC):
    tag_B1 = jnp.take_along_axis(from_BC, tag_B[:, None], axis=1)
    return tag_B1[:, 0], tag_B

  first_B, later_TB = jax.lax.scan(backward, last_B, from_TBC, reverse=True)
  return jnp.concatenate([first_B[None], later_TB]).T.astype(jnp.int32)
