# SPDX-License-Identifier: Apache-2.0
"""Back-off n-gram tables, looked up by searches in sorted arrays.

The n-grams of an order are sorted by their first words, then by their last, so
the extensions of an n-gram are a range, in which a token is found by binary
search. An n-gram is identified by its index in its order; −1 means that it was
never counted.

Dimension letters:

    M  orders of the model
    P  extensions of an n-gram that one iteration reads
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array

_CHILDREN = 1024  # grams that are read at a time when all of a range are wanted


class Order(NamedTuple):
  """The grams of one order, N of them; those of order 1 are the vocabulary.

  Attributes:
    words_N: the last token of each; None in order 1.
    starts: start of the extensions of each n-gram of the order below, and the
      end of the last, [N of the order below + 1]; None in order 1.
    log_probs_N: log-probability of the last token given those before it.
    log_weights_N: logarithm of the backoff weight; None in the highest order.
    best_words_N: the most likely next token; None in the highest order.
  """

  words_N: Array | None
  starts: Array | None
  log_probs_N: Array
  log_weights_N: Array | None
  best_words_N: Array | None


def find(order: Order, parents: Array, words: Array) -> Array:
  """Find the n-grams that extend others by one token.

  Args:
    order: where they are.
    parents: places of grams of the order below, or −1; of any shape.
    words: the tokens, of the same shape.

  Returns:
    Places in `order`, int32; −1 where there is none.
  """
  size = len(order.words_N)
  if size == 0:
    return jnp.full(parents.shape, -1, jnp.int32)
  known = parents >= 0
  place = jnp.maximum(parents, 0)
  low = order.starts[place]
  end = jnp.where(known, order.starts[place + 1], low)

  def halve(_, bounds):
    low, high = bounds
    middle = low + (high - low) // 2
    before = order.words_N[jnp.minimum(middle, size - 1)] < words
    searching = low < high
    low = jnp.where(searching & before, middle + 1, low)
    return low, jnp.where(searching & ~before, middle, high)

  rounds = size.bit_length()
  low, _ = jax.lax.fori_loop(0, rounds, halve, (low, end))
  found = (low < end) & (order.words_N[jnp.minimum(low, size - 1)] == words)
  return jnp.where(found, low, -1).astype(jnp.int32)


def advance(
  orders: tuple[Order, ...],
  tokens_BT: Array,
  places_BM: Array,
  resets_BT: Array | None = None,
) -> Array:
  """Find the last 1, 2, ... tokens, at every position.

  Args:
    orders: from order 1 to n.
    tokens_BT: what is read.
    places_BM: places of the last 1 to n - 1 tokens read before, or −1.
    resets_BT: true where nothing before the token counts.

  Returns:
    Places of the last 1 to n - 1 tokens, int32 [B, T, n - 1].
  """
  places = [tokens_BT.astype(jnp.int32)]
  for index in range(1, places_BM.shape[1]):
    first_B1 = places_BM[:, index - 1 : index]
    before = jnp.concatenate([first_B1, places[-1][:, :-1]], axis=1)
    if resets_BT is not None:
      before = jnp.where(resets_BT, -1, before)
    places.append(find(orders[index], before, tokens_BT))
  return jnp.stack(places[: places_BM.shape[1]], axis=-1)


def log_prob(
  orders: tuple[Order, ...], places_BTM: Array, words_BT: Array
) -> Array:
  """Score one token after each context.

  Args:
    orders: from order 1 to n.
    places_BTM: places of the last 1 to n - 1 tokens, or −1.
    words_BT: the tokens.

  Returns:
    Log-probabilities in nats, float32 [B, T].
  """
  score_BT = orders[0].log_probs_N[words_BT]
  for index, order in enumerate(orders[1:]):
    context_BT = places_BTM[..., index]
    place_BT = find(order, context_BT, words_BT)
    if not len(order.words_N):
      continue
    weight_BT = orders[index].log_weights_N[context_BT]
    backed_off_BT = score_BT + jnp.where(context_BT >= 0, weight_BT, 0.0)
    seen_BT = order.log_probs_N[place_BT]
    score_BT = jnp.where(place_BT >= 0, seen_BT, backed_off_BT)
  return score_BT


def best_words(orders: tuple[Order, ...], places_BTM: Array) -> Array:
  """Return the most likely token after each context, int32 [B, T]."""
  first = jnp.argmax(orders[0].log_probs_N).astype(jnp.int32)
  best_BT = jnp.full(places_BTM.shape[:2], first)
  for index, order in enumerate(orders[:-1]):
    if len(order.best_words_N):
      context_BT = places_BTM[..., index]
      here_BT = order.best_words_N[context_BT]
      best_BT = jnp.where(context_BT >= 0, here_BT, best_BT)
  return best_BT


def log_probs(orders: tuple[Order, ...], places_BTM: Array) -> Array:
  """Score every token after each context, float32 [B, T, V].

  Scores of shorter contexts come first; those of extensions of a longer context
  overwrite them, a chunk of n-grams of every row at a time.
  """
  batch, time, _ = places_BTM.shape
  places_MN = places_BTM.reshape(batch * time, -1).T
  scores_NV = jnp.broadcast_to(
    orders[0].log_probs_N, (batch * time, len(orders[0].log_probs_N))
  )
  for index, order in enumerate(orders[1:]):
    if len(order.words_N):
      weights_N = orders[index].log_weights_N
      scores_NV = _go_on(order, weights_N, places_MN[index], scores_NV)
  return scores_NV.reshape(batch, time, -1)


def _go_on(order, weights, place_N, scores_NV):
  known_N = place_N >= 0
  weight_N = jnp.where(known_N, weights[place_N], 0.0)
  low_N = order.starts[jnp.maximum(place_N, 0)]
  end_N = jnp.where(known_N, order.starts[jnp.maximum(place_N, 0) + 1], low_N)
  rows_N1 = jnp.arange(len(place_N))[:, None]
  number_P = jnp.arange(_CHILDREN)

  def some(loop):
    low_N, scores_NV = loop
    left_N1 = (end_N - low_N)[:, None]
    there_NP = number_P[None] < left_N1
    place_NP = low_N[:, None] + jnp.minimum(number_P[None], left_N1 - 1)
    nowhere = scores_NV.shape[1]
    word_NP = jnp.where(there_NP, order.words_N[place_NP], nowhere)
    scores_NV = scores_NV.at[rows_N1, word_NP].set(
      order.log_probs_N[place_NP], mode="drop"
    )
    return low_N + jnp.minimum(left_N1[:, 0], _CHILDREN), scores_NV

  return jax.lax.while_loop(
    lambda loop: jnp.any(loop[0] < end_N),
    some,
    (low_N, scores_NV + weight_N[:, None]),
  )[1]
