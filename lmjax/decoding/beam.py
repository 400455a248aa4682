# SPDX-License-Identifier: Apache-2.0
"""Beam search and greedy search for the most probable sequences.

A whole search is one traced loop. Row b · N + n of a decoding step is
hypothesis n of sequence b: what belongs to a sequence, such as its source, is
repeated N times (`repeat`), and every leaf of a carry has these rows as its
first axis.
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
  """Texts that were found, the best first.

  Attributes:
    tokens_BNT: int32, `<eos>` and padding behind their ends; a text that did
      not end before its limit has none.
    scores_BN: log-probability in nats, divided by the length penalty, less what
      is lost by coverage; −∞ where there are fewer texts.
  """

  tokens_BNT: Array
  scores_BN: Array


class _Group(NamedTuple):
  """Hypotheses that are searched for together; of a text, without B and G.

  Attributes:
    tokens_NT: those that are open.
    log_probs_N: of each; −∞ where there is none, as in a group that is done.
    ended_NT: those that have ended, the best first.
    scores_N: of each; −∞ where there is none.
    cover_N: what open ones would lose by their coverage if they ended.
    done: whether the group has found what it looks for.
  """

  tokens_NT: Array
  log_probs_N: Array
  ended_NT: Array
  scores_N: Array
  cover_N: Array
  done: Array


class _Search(NamedTuple):
  """Where a search is; see DecodeState for `state`.

  Attributes:
    index: tokens written so far.
    last_M: newest token of each open hypothesis, in rows of a step.
    carry: the model's.
    state: the filter's.
    group: its leaves begin with the axes of texts and groups.
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


def penalty(length: Array | int, alpha: float) -> Array:
  """Return what a log-probability is divided by: ((5 + length) / 6) ** α.

  Wu et al. 2016 (arXiv:1609.08144). Larger α favour longer texts; 0 divides by
  one.

  Args:
    length: tokens of a text, `<eos>` counted.
    alpha: α, at least 0.
  """
  return ((5.0 + length) / 6.0) ** alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch:
  """How texts are searched for, N at once.

  In each step the N best continuations that do not stop stay open, and those
  among the N best of all that stop have ended. Texts do not depend on one
  another. With a beam of one this is greedy search, and with a beam that holds
  all texts it is exhaustive.

  Groups search one after the other in each step, each with a share of the N,
  and a token loses `diversity_penalty` for each time that the groups before
  chose it in this step: diverse beam search (Vijayakumar et al. 2016,
  arXiv:1610.02424) with Hamming diversity. Scores are those of texts alone.

  A text that attended to places of its source less than once in sum loses by
  it, `coverage_penalty` · Σ log(sum) over such places, when it ends (Wu et al.
  2016, arXiv:1609.08144).

  Attributes:
    num_tokens: T, how many tokens are written at most; at least 1.
    beam_size: N, at least 1.
    length_penalty: α of `penalty`.
    num_groups: how many groups there are; divides N.
    diversity_penalty: what a token costs that another group has chosen.
    early_stopping: when a group is done whose share of the N has ended: at
      once (True), when its best open text would not come among them if it
      ended now (False), or when no open one can in the end ("never"). It is
      done anyway when none can come among the `num_return_sequences`.
    coverage_penalty: β of the above.
    coverage: returns how much each place of a source was attended to so far,
      [rows, S], from a carry that knows it, and 1 for padding; None for no
      penalty.
    num_return_sequences: how many texts to return, at most N.
    stop_token: ends a text.
    pad_token: what follows behind the end.
    logits_processor: transforms the log-probabilities of the next tokens, which
      are not normalized afterwards; tokens that it sets to −∞ are not
      generated. Its state is copied with each hypothesis.
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
    """Search for the texts with the highest scores behind a token.

    Args:
      step: sees B · N rows; see above.
      carry: before the first token, of B · N rows.
      first_B: token that each text begins behind; it is not in what is
        returned.
      state: the filter's behind the first token, of B · N rows.

    Returns:
      `num_return_sequences` hypotheses per row. Complete ones come before those
      that were truncated at the limit.
    """
    last_M = jnp.repeat(first_B.astype(jnp.int32), self.beam_size)
    return self._run(step, self._begin(last_M, carry, state))

  def continue_from(self, step: Step, decode_state: DecodeState) -> Hypotheses:
    """Search for the texts with the highest scores behind prompts.

    Args:
      step: sees B · N rows; see above.
      decode_state: what `read` made of the prompts, of B rows.
    """
    rows = functools.partial(repeat, times=self.beam_size)
    logits_MV, carry, state = rows(
      (decode_state.logits_BV, decode_state.carry, decode_state.state)
    )
    nothing_M = jnp.zeros(len(logits_MV), jnp.int32)
    search = self._begin(nothing_M, carry, state)
    return self._run(step, self._choose(search, logits_MV, carry))

  def _begin(self, last_M: Array, carry: PyTree, state: PyTree) -> "_Search":
    """Let one hypothesis of each group be open, which is empty."""
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
      return self._choose(search, *step(search.last_M, search.carry))

    search = jax.lax.while_loop(
      lambda search: (
        (search.index < self.num_tokens) & ~search.group.done.all()
      ),
      advance,
      search,
    )
    return jax.vmap(self._finish)(search.group)

  def _choose(
    self, search: "_Search", logits_MV: Array, carry: PyTree
  ) -> "_Search":
    """Let hypotheses go on with the best of their next tokens."""
    groups, size = self.num_groups, self.beam_size // self.num_groups
    log_probs_MV = jax.nn.log_softmax(logits_MV.astype(jnp.float32))
    log_probs_MV = self.logits_processor(log_probs_MV, search.state)
    vocab_size = log_probs_MV.shape[-1]
    log_probs = log_probs_MV.reshape(-1, groups, size, vocab_size)
    cover = self._cover(carry, len(log_probs_MV)).reshape(-1, groups, size)
    grow = functools.partial(self._grow, search.index)
    nothing_V = jnp.zeros(vocab_size, jnp.int32)

    def one_text(*inputs: PyTree):
      return jax.lax.scan(grow, nothing_V, inputs)[1]

    group, parent, last = jax.vmap(one_text)(search.group, log_probs, cover)
    first = size * jnp.arange(parent.shape[0] * groups)
    rows_M = (parent.reshape(-1, size) + first[:, None]).reshape(-1)
    last_M = last.reshape(-1)
    carry, state = jax.tree.map(
      lambda leaf: leaf[rows_M], (carry, search.state)
    )
    if jax.tree.leaves(state):
      left_MV = log_probs_MV[rows_M]
      log_prob_M = left_MV[jnp.arange(len(rows_M)), last_M]
      log_prob_M -= jax.nn.logsumexp(left_MV, axis=-1)
      state = self.logits_processor.advance(state, last_M, log_prob_M)
    return _Search(search.index + 1, last_M, carry, state, group)

  def _cover(self, carry: PyTree, rows: int) -> Array:
    """Return what each row would lose by its coverage if it ended."""
    if self.coverage is None:
      return jnp.zeros(rows)
    covered_MS = jnp.clip(self.coverage(carry), 1e-9, 1.0)
    return self.coverage_penalty * jnp.sum(jnp.log(covered_MS), axis=-1)

  def _grow(
    self, index: Array, counts_V: Array, inputs: tuple["_Group", Array, Array]
  ) -> tuple[Array, tuple["_Group", Array, Array]]:
    """Let a group choose, with what the groups before it chose in mind.

    Args:
      index: tokens of each hypothesis so far.
      counts_V: how often others chose each token in this step.
      inputs: the group, log-probabilities of next tokens, and what hypotheses
        lose by their coverage.

    Returns:
      New counts; the group, which hypothesis each one came from, and the tokens
      that were chosen.
    """
    group, log_probs_NV, cover_N = inputs
    size, vocab_size = log_probs_NV.shape
    joint_NV = group.log_probs_N[:, None] + log_probs_NV
    ranked_NV = joint_NV - self.diversity_penalty * counts_V
    # Of 2 N continuations at least N go on: each hypothesis stops in one way.
    number = min(2 * size, size * vocab_size)
    ranked_M, choice_M = jax.lax.top_k(ranked_NV.reshape(-1), number)
    joint_M = joint_NV.reshape(-1)[choice_M]
    parent_M, token_M = choice_M // vocab_size, choice_M % vocab_size
    tokens_MT = group.tokens_NT[parent_M].at[:, index].set(token_M)
    stops_M = token_M == self.stop_token
    length = index + 1

    ends_M = stops_M & (jnp.arange(number) < size)
    scores_M = jnp.where(ends_M, joint_M, -jnp.inf)
    scores_M = scores_M / penalty(length, self.length_penalty)
    scores_M += cover_N[parent_M]
    scores_M = jnp.concatenate([group.scores_N, scores_M])
    ended_MT = jnp.concatenate([group.ended_NT, tokens_MT])
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
      cover_N[parent_N],
      done,
    )
    return counts_V, (group, parent_N, token_N)

  def _is_done(self, length: Array, best_open: Array, scores_N: Array) -> Array:
    """Say whether a group need not go on."""
    alpha = self.length_penalty
    wanted = min(self.num_return_sequences, len(scores_N))
    attainable = best_open / penalty(self.num_tokens, alpha)
    done = attainable <= scores_N[wanted - 1]
    if self.early_stopping == "never":
      return done
    worst = scores_N[-1]
    if self.early_stopping:
      return done | (worst > -jnp.inf)
    return done | (best_open / penalty(length, alpha) <= worst)

  def _finish(self, group: "_Group") -> Hypotheses:
    """Return the best texts of all groups; those that were cut come last."""
    cut = group.log_probs_N / penalty(self.num_tokens, self.length_penalty)
    cut += group.cover_N
    scores_M = jnp.concatenate([group.scores_N.reshape(-1), cut.reshape(-1)])
    tokens = jnp.concatenate([group.ended_NT, group.tokens_NT])
    is_cut_M = jnp.arange(2 * self.beam_size) >= self.beam_size
    tier_M = jnp.where(scores_M > -jnp.inf, is_cut_M, 2)
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
  """Take the most probable token each time; see BeamSearch.

  Returns:
    One text for each row.
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
  scores_B = log_prob_B / penalty(length_B, length_penalty)
  return Hypotheses(tokens_BT[:, None], scores_B[:, None])
