# SPDX-License-Identifier: Apache-2.0
"""Beam search and greedy search for the most probable sequences.

A whole search is one traced loop. Row b · N + n of a decoding step is
hypothesis n of sequence b: what belongs to a sequence, such as its source, is
repeated N times (`repeat`), and every leaf of a carry has these rows as its
first axis.

Dimension letters:

    M  rows of the search: batch × hypotheses of a sequence
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.decoding.generate import DecodeState
from lmjax.decoding.logits_processors import LogitsProcessor, chain
from lmjax.types import Array, PyTree

# (tokens [rows], carry) → (logits [rows, V], carry)
Step = Callable[[Array, PyTree], tuple[Array, PyTree]]

EARLY_STOPPING = (True, False, "never")


class Hypotheses(NamedTuple):
  """Sequences found by a search, best first.

  Attributes:
    tokens_BNT: int32, ending in `<eos>` and padding, or in neither if the limit
      was reached.
    scores_BN: log-probability in nats, divided by the length penalty, plus the
      coverage penalty; −∞ if there are fewer sequences.
  """

  tokens_BNT: Array
  scores_BN: Array


class _Group(NamedTuple):
  """One group of hypotheses of one sequence.

  Attributes:
    tokens_NT: open hypotheses.
    log_probs_N: their log-probabilities; −∞ if there are fewer, and for all of
      a group that is done.
    finished_NT: finished hypotheses, best first.
    scores_N: their scores; −∞ if there are fewer.
    coverage_N: coverage penalty of open hypotheses if they ended now.
    done: whether the search of this group is over.
  """

  tokens_NT: Array
  log_probs_N: Array
  finished_NT: Array
  scores_N: Array
  coverage_N: Array
  done: Array


class _Search(NamedTuple):
  """State of the search loop.

  Attributes:
    index: number of tokens so far.
    last_M: newest token of each open hypothesis, M = B · N rows.
    carry: carry of the model.
    state: state of the logits processor.
    group: leaves have the axes [sequences, groups, …].
  """

  index: Array
  last_M: Array
  carry: PyTree
  state: PyTree
  group: _Group


def repeat(tree: PyTree, times: int) -> PyTree:
  """Repeat each row of all leaves.

  >>> repeat(jnp.array([1, 2]), 3)
  [1, 1, 1, 2, 2, 2]
  """
  return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), tree)


def length_normalizer(length: Array | int, alpha: float) -> Array:
  """Return the divisor of a log-probability, ((5 + length) / 6) ** α.

  Equation 14 of Wu et al. 2016 (arXiv:1609.08144). Larger α favor longer
  sequences; 0 has no effect.

  >>> length_normalizer(7, 1.0)
  2.0

  Args:
    length: number of tokens, including `<eos>`.
    alpha: α, at least 0.
  """
  return ((5.0 + length) / 6.0) ** alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch:
  """Beam search with N hypotheses per sequence.

  In each step the N best continuations that do not end stay open, and those
  that end are finished if they are among the N best of all. Sequences of a
  batch do not depend on each other. A beam of size 1 is greedy search, and a
  beam that holds all sequences is exhaustive.

  With several groups, each has N / `num_groups` hypotheses. The groups are
  extended one after the other in each step, and a token costs
  `diversity_penalty` for each earlier hypothesis that chose it in this step:
  diverse beam search (Vijayakumar et al. 2016, arXiv:1610.02424) with Hamming
  diversity. The penalty is not part of the scores.

  With a coverage penalty β, a finished hypothesis scores β · Σ log(min(c, 1))
  less, where c is the attention that each source position received in total
  (equation 14 of Wu et al. 2016, arXiv:1609.08144).

  Attributes:
    num_tokens: T, maximum number of tokens; at least 1.
    beam_size: N, at least 1.
    length_penalty: α of the function `length_normalizer`.
    num_groups: number of groups; must divide N.
    diversity_penalty: nats that a token costs for each earlier hypothesis.
    early_stopping: when a group is done that has N / `num_groups` finished
      hypotheses: immediately (True), when its best open hypothesis would not be
      among them if it ended now (False), or when no open one can be ("never").
      A group is always done when no open hypothesis can be among the
      `num_return_sequences` best.
    coverage_penalty: β, at least 0.
    coverage: returns the coverage [M, S] in a carry, with 1 at padding; None
      for no penalty.
    num_return_sequences: number of sequences to return, at most N.
    stop_token: ends a sequence.
    pad_token: fills rows after their end.
    logits_processor: maps the log-probabilities of the next tokens, which are
      not normalized afterwards; tokens that it sets to −∞ are not generated.
      Its state is copied with each hypothesis.
  """

  num_tokens: int
  beam_size: int
  length_penalty: Array | float = 0.0
  num_groups: int = 1
  diversity_penalty: Array | float = 0.0
  early_stopping: bool | str = True
  coverage_penalty: Array | float = 0.0
  coverage: Callable[[PyTree], Array] | None = None
  num_return_sequences: int = 1
  stop_token: int
  pad_token: int
  logits_processor: LogitsProcessor = chain([])

  def __call__(
    self, step: Step, carry: PyTree, first_B: Array, state: PyTree = ()
  ) -> Hypotheses:
    """Search for the sequences with the highest scores after one token.

    Args:
      step: processes M = B · N rows; see above.
      carry: the carry before the first token, of M rows.
      first_B: the token before each sequence, which is not part of the result.
      state: state of the logits processor after this token, of M rows.

    Returns:
      `num_return_sequences` hypotheses per sequence. Complete ones come before
      those that were truncated at the limit.
    """
    last_M = jnp.repeat(first_B.astype(jnp.int32), self.beam_size)
    return self._run(step, self._start(last_M, carry, state))

  def continue_from(self, step: Step, decode_state: DecodeState) -> Hypotheses:
    """Search for the sequences with the highest scores after prompts.

    Args:
      step: processes M = B · N rows; see above.
      decode_state: the state after `prefill`, of B rows.
    """
    rows = functools.partial(repeat, times=self.beam_size)
    logits_MV, carry, state = rows(
      (decode_state.logits_BV, decode_state.carry, decode_state.state)
    )
    unused_M = jnp.zeros(len(logits_MV), jnp.int32)
    search = self._start(unused_M, carry, state)
    return self._run(step, self._select(search, logits_MV, carry))

  def _start(self, last_M: Array, carry: PyTree, state: PyTree) -> "_Search":
    """Return the state before the first step.

    Only the first hypothesis of each group is open: all are equal, and the beam
    would be filled with copies otherwise.
    """
    groups, size = self.num_groups, self.beam_size // self.num_groups
    batch = len(last_M) // self.beam_size
    shape = (batch, groups, size)
    tokens = jnp.full((*shape, self.num_tokens), self.pad_token, jnp.int32)
    nothing = jnp.full(shape, -jnp.inf)
    done = jnp.zeros((batch, groups), bool)
    one = nothing.at[..., 0].set(0.0)
    group = _Group(tokens, one, tokens, nothing, jnp.zeros(shape), done)
    return _Search(jnp.int32(0), last_M, carry, state, group)

  def _run(self, step: Step, search: "_Search") -> Hypotheses:
    def advance(search: _Search) -> _Search:
      return self._select(search, *step(search.last_M, search.carry))

    search = jax.lax.while_loop(
      lambda search: (
        (search.index < self.num_tokens) & ~search.group.done.all()
      ),
      advance,
      search,
    )
    return jax.vmap(self._finish)(search.group)

  def _select(
    self, search: "_Search", logits_MV: Array, carry: PyTree
  ) -> "_Search":
    """Extend hypotheses by the best of their next tokens."""
    groups, size = self.num_groups, self.beam_size // self.num_groups
    log_probs_MV = jax.nn.log_softmax(logits_MV.astype(jnp.float32))
    log_probs_MV = self.logits_processor(log_probs_MV, search.state)
    vocab_size = log_probs_MV.shape[-1]
    log_probs = log_probs_MV.reshape(-1, groups, size, vocab_size)
    coverage = self._coverage(carry, len(log_probs_MV)).reshape(
      -1, groups, size
    )
    extend = functools.partial(self._extend_group, search.index)
    zero_V = jnp.zeros(vocab_size, jnp.int32)

    def one_sequence(*inputs: PyTree):
      return jax.lax.scan(extend, zero_V, inputs)[1]

    group, parent, last = jax.vmap(one_sequence)(
      search.group, log_probs, coverage
    )
    first = size * jnp.arange(parent.shape[0] * groups)
    rows_M = (parent.reshape(-1, size) + first[:, None]).reshape(-1)
    last_M = last.reshape(-1)
    carry, state = jax.tree.map(
      lambda leaf: leaf[rows_M], (carry, search.state)
    )
    if jax.tree.leaves(state):
      parent_log_probs_MV = log_probs_MV[rows_M]
      log_prob_M = parent_log_probs_MV[jnp.arange(len(rows_M)), last_M]
      log_prob_M -= jax.nn.logsumexp(parent_log_probs_MV, axis=-1)
      state = self.logits_processor.advance(state, last_M, log_prob_M)
    return _Search(search.index + 1, last_M, carry, state, group)

  def _coverage(self, carry: PyTree, rows: int) -> Array:
    """Return the coverage penalty of each row if it ended now, at most 0."""
    if self.coverage is None:
      return jnp.zeros(rows)
    covered_MS = jnp.clip(self.coverage(carry), 1e-9, 1.0)
    return self.coverage_penalty * jnp.sum(jnp.log(covered_MS), axis=-1)

  def _extend_group(
    self, index: Array, counts_V: Array, inputs: tuple["_Group", Array, Array]
  ) -> tuple[Array, tuple["_Group", Array, Array]]:
    """Extend one group, given the tokens that earlier groups chose.

    Args:
      index: number of tokens of each hypothesis so far.
      counts_V: how often each token was chosen in this step.
      inputs: the group, log-probabilities of next tokens, and coverage
        penalties.

    Returns:
      The new counts; the group, the parent of each new hypothesis, and its
      token.
    """
    group, log_probs_NV, coverage_N = inputs
    size, vocab_size = log_probs_NV.shape
    joint_NV = group.log_probs_N[:, None] + log_probs_NV
    ranked_NV = joint_NV - self.diversity_penalty * counts_V[None]
    # At most N of the best 2 N continuations end, one per hypothesis, so at
    # least N of them stay open.
    number = min(2 * size, size * vocab_size)
    ranked_M, choice_M = jax.lax.top_k(ranked_NV.reshape(-1), number)
    joint_M = joint_NV.reshape(-1)[choice_M]
    parent_M, token_M = choice_M // vocab_size, choice_M % vocab_size
    tokens_MT = group.tokens_NT[parent_M].at[:, index].set(token_M)
    stops_M = token_M == self.stop_token
    length = index + 1

    ends_M = stops_M & (jnp.arange(number) < size)
    scores_M = jnp.where(ends_M, joint_M, -jnp.inf)
    scores_M = scores_M / length_normalizer(length, self.length_penalty)
    scores_M += coverage_N[parent_M]
    scores_M = jnp.concatenate([group.scores_N, scores_M])
    ended_MT = jnp.concatenate([group.finished_NT, tokens_MT])
    scores_N, best_N = jax.lax.top_k(scores_M, size)

    _, place_N = jax.lax.top_k(jnp.where(stops_M, -jnp.inf, ranked_M), size)
    open_N = jnp.where(stops_M, -jnp.inf, joint_M)[place_N]
    token_N = token_M[place_N]
    done = group.done | self._is_done(length, jnp.max(open_N), scores_N)
    open_N = jnp.where(done, -jnp.inf, open_N)
    counts_V = counts_V.at[token_N].add(open_N > -jnp.inf)
    parent_N = parent_M[place_N]
    group = _Group(
      tokens_MT[place_N],
      open_N,
      ended_MT[best_N],
      scores_N,
      coverage_N[parent_N],
      done,
    )
    return counts_V, (group, parent_N, token_N)

  def _is_done(self, length: Array, best_open: Array, scores_N: Array) -> Array:
    """Return whether the search of a group is over."""
    alpha = self.length_penalty
    number = min(self.num_return_sequences, len(scores_N))
    attainable = best_open / length_normalizer(self.num_tokens, alpha)
    done = attainable <= scores_N[number - 1]
    if self.early_stopping == "never":
      return done
    worst = scores_N[-1]
    if self.early_stopping:
      return done | (worst > -jnp.inf)
    return done | (best_open / length_normalizer(length, alpha) <= worst)

  def _finish(self, group: "_Group") -> Hypotheses:
    """Return the best hypotheses of all groups, truncated ones last."""
    truncated = group.log_probs_N / length_normalizer(
      self.num_tokens, self.length_penalty
    )
    truncated += group.coverage_N
    scores_M = jnp.concatenate(
      [group.scores_N.reshape(-1), truncated.reshape(-1)]
    )
    tokens = jnp.concatenate([group.finished_NT, group.tokens_NT])
    is_truncated_M = jnp.arange(2 * self.beam_size) >= self.beam_size
    tier_M = jnp.where(scores_M > -jnp.inf, is_truncated_M, 2)
    order_N = jnp.lexsort((-scores_M, tier_M))[: self.num_return_sequences]
    tokens_MT = tokens.reshape(-1, self.num_tokens)
    return Hypotheses(tokens_MT[order_N], scores_M[order_N])


def greedy_search(
  step: Step,
  carry: PyTree,
  first_B: Array,
  num_tokens: int,
  *,
  length_penalty: float = 0.0,
  stop_token: int,
  pad_token: int,
) -> Hypotheses:
  """Select the most probable token in each step; see BeamSearch.

  Returns:
    One sequence per row.
  """
  batch = len(first_B)

  def advance(loop):
    index, last_B, tokens_BT, log_prob_B, carry, done_B = loop
    logits_BV, carry = step(last_B, carry)
    log_probs_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32))
    token_B = jnp.argmax(log_probs_BV, axis=-1).astype(jnp.int32)
    log_prob_B += jnp.where(done_B, 0.0, jnp.max(log_probs_BV, axis=-1))
    token_B = jnp.where(done_B, pad_token, token_B)
    tokens_BT = tokens_BT.at[:, index].set(token_B)
    done_B |= token_B == stop_token
    return index + 1, token_B, tokens_BT, log_prob_B, carry, done_B

  blank_BT = jnp.full((batch, num_tokens), pad_token, jnp.int32)
  first_B, nothing_B = first_B.astype(jnp.int32), jnp.zeros(batch)
  start = (jnp.int32(0), first_B, blank_BT, nothing_B, carry, nothing_B > 0)
  _, _, tokens_BT, log_prob_B, _, _ = jax.lax.while_loop(
    lambda loop: (loop[0] < num_tokens) & ~loop[-1].all(), advance, start
  )
  ends_BT = tokens_BT == stop_token
  length_B = jnp.where(
    ends_BT.any(axis=1), jnp.argmax(ends_BT, axis=1) + 1, num_tokens
  )
  scores_B = log_prob_B / length_normalizer(length_B, length_penalty)
  return Hypotheses(tokens_BT[:, None], scores_B[:, None])
