# SPDX-License-Identifier: Apache-2.0
"""Tokens in, tokens out: a model and the generation loop.

Prompts of different length share a batch. Lengths are rounded up to few sizes,
so that few programs are compiled whatever is asked for; see `bucket`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import EOS, PAD
from lmjax.decoding.filters import Filter, Prompt
from lmjax.decoding.generate import (
  DecodeState,
  SampledTokens,
  Step,
  decode,
  prefill,
)
from lmjax.errors import UsageError
from lmjax.ops.int8 import dense_weights, quantize_weights
from lmjax.types import Array, PyTree

MOST = 2**31 - 1  # of anything that is counted
_SMALLEST = 16  # tokens of a prompt; shorter ones are read as fast


class Request(NamedTuple):
  """A text to go on from.

  Attributes:
    tokens: at least one.
    num_tokens: how many tokens to draw at most.
    seed: the same seed draws the same tokens, whatever else is in the batch.
    sample: number of a sample; each draws tokens of its own.
    source: tokens that an encoder–decoder reads; None for other models.
    control_code: the control code among the tokens, which stays in front of the
      refill context when the cache is full; −1 for none.
  """

  tokens: np.ndarray
  num_tokens: int
  seed: int = 0
  sample: int = 0
  source: np.ndarray | None = None
  control_code: int = -1

  @property
  def num_read(self) -> int:
    """How many tokens are read before any is drawn."""
    return len(self.tokens) + (0 if self.source is None else len(self.source))


class GeneratedChunk(NamedTuple):
  """What was drawn for a request in one call of the loop.

  Attributes:
    tokens: the new ones, with the one that stops the text.
    log_probs: of each, in nats, as the model has it before any filter.
    finish_reason: "stop", "length", or "" where the text goes on.
    best: for each token, the likeliest ones in its place, likeliest first, with
      their log-probabilities; empty if none were asked for.
    score: what a text was chosen by, where it was searched for; else None.
  """

  tokens: list[int]
  log_probs: list[float]
  finish_reason: str
  best: Sequence[list[tuple[int, float]]] = ()
  score: float | None = None


# Pieces of all requests → which texts have ended by other signs than a token.
DoneCheck = Callable[[list[GeneratedChunk]], Sequence[bool]]


class GenerationStats(NamedTuple):
  """How long a generation took.

  Attributes:
    prompt_tokens: how many were read.
    prefill_seconds: what reading them took; 0 where that is part of drawing.
    new_tokens: how many were drawn.
    decode_seconds: what drawing them took.
    first_seconds: until the first tokens were there.
    tokens_per_call: how many a text got from a call of the model.
  """

  prompt_tokens: int = 0
  prefill_seconds: float = 0.0
  new_tokens: int = 0
  decode_seconds: float = 0.0
  first_seconds: float = 0.0
  tokens_per_call: float = 1.0

  def plus(self, later: "GenerationStats") -> "GenerationStats":
    """Add what was generated afterwards."""
    both = [timing for timing in (self, later) if timing.new_tokens]
    calls = sum(timing.new_tokens / timing.tokens_per_call for timing in both)
    new_tokens = self.new_tokens + later.new_tokens
    return GenerationStats(
      self.prompt_tokens + later.prompt_tokens,
      self.prefill_seconds + later.prefill_seconds,
      new_tokens,
      self.decode_seconds + later.decode_seconds,
      self.first_seconds or later.first_seconds,
      new_tokens / calls if calls else 1.0,
    )

  def __str__(self) -> str:
    """Describe it in a line."""
    text = f"prefill {self.prompt_tokens:,} tokens"
    if self.prefill_seconds:
      text += f", {self.prompt_tokens / self.prefill_seconds:,.0f} tokens/s"
    decode = self.new_tokens / max(self.decode_seconds, 1e-9)
    text += (
      f"; decode {self.new_tokens:,} tokens, {decode:,.0f} tokens/s; first "
      f"token after {self.first_seconds:.3f} s"
    )
    if self.tokens_per_call != 1:
      text += f"; {self.tokens_per_call:.2f} tokens a call of the model"
    return text


class Generator:
  """Draw tokens from a model.

  Attributes:
    timing: of the last call, as far as its pieces were read.

  Args:
    model: keeps the contract of lmjax.models.
    stop_tokens: after any of these a text has ended.
    bidirectional_prompt: whether the model reads prompts in both directions.
    keeps_layout: whether what the model makes of its variables for decoding is
      kept from call to call, as where they do not change.
    int8_weights: whether large matrices lie in memory in eight bits.
  """

  def __init__(
    self,
    model: nn.Module,
    stop_tokens: tuple[int, ...] = (EOS,),
    bidirectional_prompt: bool = False,
    keeps_layout: bool = False,
    int8_weights: bool = False,
  ):
    self._model, self._bidirectional_prompt = model, bidirectional_prompt
    self._int8_weights = int8_weights
    self._stop_tokens, self._keeps_layout = stop_tokens, keeps_layout
    self._programs: dict[int, _Programs] = {}
    self.timing = GenerationStats()

  def __call__(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
    chunk: int = 0,
    is_done: DoneCheck | None = None,
    num_top_logprobs: int = 0,
  ) -> Iterator[list[GeneratedChunk]]:
    """Draw tokens for requests, some at a time.

    Args:
      variables: the model's variables.
      requests: any number of them; all have a source, or none.
      logits_processor: turns logits into those that are drawn from.
      chunk: how many tokens to draw before they are returned; 0 for all.
      is_done: asked after each chunk.
      num_top_logprobs: number of most likely tokens returned per position.

    Returns:
      A piece for each request, again and again until all have ended.

    Raises:
      UsageError: if a number is out of range, or a prompt is longer than the
        model's context.
    """
    max_context = self._model.max_context
    for request in requests:
      check_minimum(num_tokens=request.num_tokens)
      check_length(max_context, request.tokens)
    began = time.perf_counter()
    batch = RequestBatch.of(requests, max_context)
    programs, laid_out = self._lay_out(variables, len(batch.limit_B))
    longest = max(len(r.tokens) + r.num_tokens for r in requests)
    if max_context is None or longest <= max_context:
      max_context = None
    most = bucket(max(request.num_tokens for request in requests))
    capacity = batch.prompt.tokens_BT.shape[1] + most
    if self._model.max_context is not None:
      capacity = min(capacity, self._model.max_context)
    decode_state, memory = jax.block_until_ready(
      programs.prefill(
        laid_out,
        batch,
        logits_processor,
        capacity=capacity,
        max_context=max_context,
      )
    )
    timing = GenerationStats(
      sum(request.num_read for request in requests),
      time.perf_counter() - began,
    )
    size = chunk or most
    count_B = np.zeros(len(batch.limit_B), int)
    over_B = np.zeros(len(batch.limit_B), bool)
    while True:
      began = time.perf_counter()
      sampled, decode_state = programs.decode(
        laid_out,
        decode_state,
        memory,
        over_B,
        batch.keys_B,
        batch.limit_B,
        batch.control_code_B,
        logits_processor,
        num_tokens=size,
        max_context=max_context,
        num_top_logprobs=num_top_logprobs,
      )
      sampled = jax.device_get(sampled)
      before_B, count_B = count_B, np.asarray(decode_state.count_B)
      stopped_B = np.asarray(decode_state.done_B)
      cut_B = count_B >= batch.limit_B
      pieces = [
        _chunk(
          sampled,
          row,
          count_B[row] - before_B[row],
          "stop" if stopped_B[row] else "length" if cut_B[row] else "",
        )
        for row in range(len(requests))
      ]
      seconds = timing.decode_seconds + time.perf_counter() - began
      timing = timing._replace(
        new_tokens=timing.new_tokens + sum(len(x.tokens) for x in pieces),
        decode_seconds=seconds,
        first_seconds=timing.first_seconds or timing.prefill_seconds + seconds,
      )
      self.timing = timing
      yield pieces
      if is_done is not None:
        over_B[: len(requests)] = is_done(pieces)
      if (stopped_B | over_B | cut_B).all():
        return

  def _lay_out(
    self, variables: PyTree, rows: int
  ) -> tuple["_Programs", PyTree]:
    """Return programs for so many rows, and the variables that they take."""
    if rows not in self._programs:
      self._programs[rows] = _Programs(
        self._model,
        variables,
        rows,
        self._stop_tokens,
        self._bidirectional_prompt,
        self._int8_weights,
      )
    programs = self._programs[rows]
    if programs.kept is not None and programs.kept[0] is variables:
      return programs, programs.kept[1]
    laid_out = programs.lay_out(variables)
    if self._keeps_layout:
      programs.kept = variables, laid_out
    return programs, laid_out


def _chunk(
  sampled: SampledTokens, row: int, length: int, finish_reason: str
) -> GeneratedChunk:
  """Take what was drawn for a row."""
  tokens, log_probs, best_NK, best_log_probs_NK = (
    array[row, :length].tolist() for array in sampled
  )
  best = [
    [*zip(*pair, strict=True)]
    for pair in zip(best_NK, best_log_probs_NK, strict=True)
  ]
  return GeneratedChunk(tokens, log_probs, finish_reason, best)


class RequestBatch(NamedTuple):
  """A padded batch of requests; padding rows generate no tokens."""

  prompt: Prompt
  keys_B: Array
  limit_B: np.ndarray
  control_code_B: np.ndarray
  sources_BS: np.ndarray | None
  source_mask_BS: np.ndarray | None

  @classmethod
  def of(
    cls, requests: Sequence[Request], max_context: int | None
  ) -> "RequestBatch":
    """Pad requests to one of few shapes."""
    rows = [*requests]
    rows += [requests[0]] * (bucket_rows(len(rows)) - len(rows))
    length = bucket(max(len(row.tokens) for row in rows))
    length = length if max_context is None else min(length, max_context)
    tokens_BT = np.full((len(rows), length), PAD, np.int32)
    for number, row in enumerate(rows):
      tokens_BT[number, length - len(row.tokens) :] = row.tokens
    starts_B = np.array([length - len(row.tokens) for row in rows], np.int32)
    limits = [row.num_tokens for row in requests]
    limits += [0] * (len(rows) - len(requests))
    seeds = np.array([row.seed % 2**32 for row in rows], np.uint32)
    samples = np.array([row.sample for row in rows], np.uint32)
    sources_BS = mask_BS = None
    if requests[0].source is not None:
      widest = bucket(max(len(row.source) for row in rows))
      sources_BS = np.full((len(rows), widest), PAD, np.int32)
      mask_BS = np.zeros((len(rows), widest), bool)
      for number, row in enumerate(rows):
        sources_BS[number, : len(row.source)] = row.source
        mask_BS[number, : len(row.source)] = True
    return cls(
      Prompt(tokens_BT, starts_B),
      _keys(seeds, samples),
      np.array(limits, np.int32),
      np.array([row.control_code for row in rows], np.int32),
      sources_BS,
      mask_BS,
    )

  def encode(self, model: nn.Module, variables: PyTree) -> PyTree:
    """Return what a model makes of the sources; None if there are none."""
    if self.sources_BS is None:
      return None
    return model.apply(
      variables, self.sources_BS, self.source_mask_BS, method="encode"
    )


class _Programs:
  """The compiled functions for a number of rows.

  Attributes:
    kept: variables, and how they were laid out.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: PyTree,
    rows: int,
    stop_tokens: tuple[int, ...],
    bidirectional_prompt: bool,
    int8_weights: bool,
  ):
    made = []

    def lay_out(variables: PyTree) -> PyTree:
      laid_out_model, laid_out = model.for_decoding(variables, rows)
      made.append(laid_out_model)
      return quantize_weights(laid_out) if int8_weights else laid_out

    jax.eval_shape(lay_out, variables)
    self._model, self.kept = made[0], None
    self._stop_tokens, self._bidirectional_prompt = (
      stop_tokens,
      bidirectional_prompt,
    )
    self.lay_out = jax.jit(lay_out)
    self.prefill = jax.jit(
      self._prefill, static_argnames=("capacity", "max_context")
    )
    self.decode = jax.jit(
      self._decode,
      static_argnames=("num_tokens", "max_context", "num_top_logprobs"),
      donate_argnames="decode_state",
    )

  def _prefill(
    self,
    variables: PyTree,
    batch: RequestBatch,
    logits_processor: Filter,
    capacity: int,
    max_context: int | None,
  ) -> tuple[DecodeState, PyTree]:
    memory = batch.encode(self._model, dense_weights(variables))
    carry = self._model.initial_carry(len(batch.limit_B), capacity)
    step = self._step(variables, memory)
    return prefill(
      step, carry, batch.prompt, logits_processor, max_context
    ), memory

  def _decode(
    self,
    variables: PyTree,
    decode_state: DecodeState,
    memory: PyTree,
    over_B: Array,
    keys_B: Array,
    limit_B: Array,
    control_code_B: Array,
    logits_processor: Filter,
    num_tokens: int,
    max_context: int | None,
    num_top_logprobs: int,
  ) -> tuple[SampledTokens, DecodeState]:
    return decode(
      self._step(variables, memory),
      self._model.rewind,
      decode_state._replace(done_B=decode_state.done_B | over_B),
      keys_B,
      limit_B,
      num_tokens,
      logits_processor,
      stop_tokens=self._stop_tokens,
      pad_token=PAD,
      max_context=max_context,
      control_code_B=control_code_B,
      num_top_logprobs=num_top_logprobs,
    )

  def _step(self, variables: PyTree, memory: PyTree) -> Step:
    return reading_step(
      self._model, variables, memory, self._bidirectional_prompt
    )


def reading_step(
  model: nn.Module,
  variables: PyTree,
  memory: PyTree,
  bidirectional_prompt: bool,
) -> Step:
  """Return what turns tokens into the logits behind the last one.

  Args:
    model: keeps the contract of lmjax.models.
    variables: its own, or as quantize_weights leaves them.
    memory: what it made of sources; None for models without.
    bidirectional_prompt: whether several tokens, a prompt, see each other.
  """
  always = {} if memory is None else dict(memory=memory)

  def step(
    tokens_BT: Array, carry: PyTree, resets_BT: Array | None
  ) -> tuple[Array, PyTree]:
    floats, options = dense_weights(variables), dict(always)
    if bidirectional_prompt and tokens_BT.shape[1] > 1:
      options["bidirectional_BT"] = jnp.ones(tokens_BT.shape, bool)
    return read_last(model, floats, tokens_BT, carry, resets_BT, **options)

  return step


def read_last(
  model: nn.Module,
  variables: PyTree,
  tokens_BT: Array,
  carry: PyTree,
  resets_BT: Array | None,
  **options: PyTree,
) -> tuple[Array, PyTree]:
  """Read tokens; return the logits behind the last, [B, V], and a carry."""
  hidden, carry = model.apply(variables, tokens_BT, carry, resets_BT, **options)
  last = jax.tree.map(lambda leaf: leaf[:, -1:], hidden)
  return model.apply(variables, last, method="logits")[:, 0], carry


@jax.jit
def _keys(seeds_B: Array, samples_B: Array) -> Array:
  fold = jax.vmap(jax.random.fold_in)
  return fold(jax.vmap(jax.random.key)(seeds_B), samples_B)


def bucket(length: int) -> int:
  """Round a length up to one of four sizes an octave.

  >>> [bucket(n) for n in (1, 2, 33, 200, 257)]
  [1, 16, 40, 224, 320]
  """
  if length <= _SMALLEST:
    return _SMALLEST if length > 1 else length
  size = 1 << max((length - 1).bit_length() - 3, 3)
  return -(-length // size) * size


def bucket_rows(number: int) -> int:
  """Round a number of rows up to a power of two."""
  return 1 << (number - 1).bit_length()


def check_length(
  max_context: int | None, tokens: np.ndarray, name: str = "prompt"
) -> None:
  """See that a model's context holds a prompt, or what it is called.

  Raises:
    UsageError: if it does not.
  """
  if max_context is not None and len(tokens) > max_context:
    raise UsageError(
      f"the {name} has {len(tokens)} tokens and the model's context holds "
      f"{max_context}; shorten the {name}."
    )


def check_minimum(**numbers: int) -> None:
  """See that numbers are at least 1, and fit into an int32.

  Raises:
    UsageError: naming the first that is not.
  """
  for name, number in numbers.items():
    if number < 1:
      raise UsageError(f"{name}={number} must be at least 1.")
    if number > MOST:
      raise UsageError(f"{name}={number} must be at most {MOST:,}.")
