# SPDX-License-Identifier: Apache-2.0
"""Text in, text out: a model, its tokenizer and the generation loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from lmjax.data.text.stream import find_control_code
from lmjax.data.tokenizers import BOS, EOS, PAD, UNK, Tokenizer
from lmjax.decoding.filters import Ban, Filter, Greedy, chain
from lmjax.errors import UsageError
from lmjax.generation.decoding_strategy import Search
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.generator import (
  GeneratedChunk,
  GenerationStats,
  Request,
  check_length,
  check_minimum,
)
from lmjax.generation.sampling_params import SamplingParams
from lmjax.types import PyTree

# Texts that are drawn together → filters that come before all others.
Steer = Callable[[Sequence[Request]], Sequence[Filter]]
Control = Callable[[Tokenizer], Steer]

_CHUNK = 16  # tokens drawn before stop strings and time are looked at


class Continuation(NamedTuple):
  """A text that was drawn.

  Attributes:
    text: the text, without the prompt.
    tokens: its tokens, without `<eos>`.
    log_probs: of each, in nats, as the model has it before any filter.
    finish_reason: "stop" or "length".
    score: what it was chosen by, where it was searched for: that of a beam, or
      of who chose among many; else None.
  """

  text: str
  tokens: list[int]
  log_probs: list[float]
  finish_reason: str
  score: float | None = None


class TextSampler:
  """Draw text from a language model.

  Attributes:
    tokenizer: what texts are written in.
    reads_sources: whether prompts are texts that others are written for.
    timing: of the last call.

  Args:
    model: keeps the contract of lmjax.models.
    tokenizer: the one that it was trained with.
    bidirectional_prompt: whether attention is bidirectional in prompts (prefix
      LM).
    writes_marks: whether the tokenizer's extras may be drawn.
    opens_documents: whether prompts begin a document, behind `<eos>`, as those
      of training do where memory is emptied at documents.
    keeps_layout: see Generator, as for the following.
    int8_weights: whether large matrices lie in memory in eight bits.
    control: constraints and guidance of the generated text; see
      lmjax.control. None for nothing.
    search: how texts are found; None where they are drawn.
  """

  reads_sources = False

  def __init__(
    self,
    model: nn.Module,
    tokenizer: Tokenizer,
    bidirectional_prompt: bool = False,
    writes_marks: bool = False,
    opens_documents: bool = False,
    keeps_layout: bool = False,
    int8_weights: bool = False,
    control: Control | None = None,
    search: Search | None = None,
  ):
    self.tokenizer, self._max_context = tokenizer, model.max_context
    self._steer = control(tokenizer) if control else (lambda requests: ())
    self._opens_documents = opens_documents
    self._ban = Ban((PAD, UNK, BOS) if writes_marks else no_text(tokenizer))
    self._search = search or Search()
    self._generator = self._search.generator(
      model,
      tokenizer,
      bidirectional_prompt=bidirectional_prompt,
      keeps_layout=keeps_layout,
      int8_weights=int8_weights,
    )

  @property
  def timing(self) -> GenerationStats:
    """How long the last call took."""
    return self._generator.timing

  def __call__(
    self,
    variables: PyTree,
    prompt: str,
    num_tokens: int = 200,
    num_samples: int = 1,
    seed: int = 0,
    control_code: str = "",
    **sampling: Any,
  ) -> list[str]:
    """Continue a prompt.

    Args:
      variables: the model's variables.
      prompt: text to go on from; an empty one stands for the begin of a
        document.
      num_tokens: how many tokens to draw at most; `<eos>` ends a sample.
      num_samples: how many continuations.
      seed: the same seed draws the same text; sample i does not depend on how
        many there are.
      control_code: control code that the text stands under; empty for none.
      **sampling: fields of lmjax.generation.sampling_params.SamplingParams.

    Returns:
      The continuations, without the prompt.

    Raises:
      UsageError: if a number is out of range, or the prompt is longer than the
        model's context.
    """
    filters = SamplingParams(**sampling).filters(self.tokenizer)
    requests = self.requests(
      [prompt], num_tokens, num_samples, seed, control_code
    )
    return [x.text for x in self.draw(variables, requests, filters)]

  def requests(
    self,
    prompts: Sequence[str],
    num_tokens: int,
    num_samples: int = 1,
    seed: int = 0,
    control_code: str = "",
  ) -> list[Request]:
    """Ask for continuations of prompts, all of the first one first.

    Raises:
      UsageError: if a number is out of range, or a prompt is longer than the
        model's context.
    """
    check_minimum(num_samples=num_samples, num_tokens=num_tokens)
    token = (
      find_control_code(control_code, self.tokenizer) if control_code else -1
    )
    return [
      Request(tokens, num_tokens, seed, sample, control_code=token)
      for tokens in (self.encode(prompt, control_code) for prompt in prompts)
      for sample in range(num_samples)
    ]

  def draw(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    filters: Sequence[Filter],
    stop_strings: Sequence[str] = (),
    max_seconds: float | None = None,
  ) -> list[Continuation]:
    """Continue texts.

    Args:
      variables: the model's variables.
      requests: any number of them.
      filters: what tokens are chosen by.
      stop_strings: strings before which a text ends.
      max_seconds: after which no more is drawn; None for no limit.

    Raises:
      UsageError: see Generator; and if a beam would search among the most
        likely tokens alone.
    """
    streams = self._streams(requests, stop_strings)
    for _ in self.stream(
      variables, requests, filters, stop_strings, max_seconds, streams=streams
    ):
      pass
    return [
      Continuation(
        s.text, s.tokens, s.log_probs, s.finish_reason or "length", s.score
      )
      for s in streams
    ]

  def stream(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    filters: Sequence[Filter],
    stop_strings: Sequence[str] = (),
    max_seconds: float | None = None,
    chunk: int = 0,
    streams: Sequence[StreamingDetokenizer] | None = None,
    num_top_logprobs: int = 0,
  ) -> Iterator[list[str]]:
    """Continue texts, some tokens at a time; see `draw`.

    Args:
      variables: the model's variables.
      requests: any number of them.
      filters: what tokens are chosen by.
      stop_strings: strings before which a text ends.
      max_seconds: after which no more is drawn; None for no limit.
      chunk: tokens at a time; 0 for all, or some where there are other ends
        to look for than `<eos>`.
      streams: what texts grow in; None for new ones.
      num_top_logprobs: number of most likely tokens returned per position.

    Returns:
      What is new of each text, again and again.
    """
    is_greedy = any(isinstance(each, Greedy) for each in filters)
    if is_greedy and self._search.beam_size > 1:
      raise UsageError(
        f"beam_size={self._search.beam_size} searches for the most likely "
        "texts without drawing, and temperature=0 leaves it a single one; give "
        "temperature=1."
      )
    began = time.monotonic()
    streams = streams or self._streams(requests, stop_strings)
    watched = bool(stop_strings) or max_seconds is not None
    new = [""] * len(streams)

    def is_done(pieces: list[GeneratedChunk]) -> list[bool]:
      del pieces
      late = max_seconds is not None and time.monotonic() - began > max_seconds
      return [late or bool(stream.finish_reason) for stream in streams]

    options = {}
    if self._search.best_of:
      options["cut"] = lambda row, piece: streams[row].cut(piece)
    for pieces in self._generator(
      variables,
      requests,
      chain([self._ban, *self._steer(requests), *filters]),
      chunk or (_CHUNK if watched else 0),
      is_done,
      num_top_logprobs,
      **options,
    ):
      new = [
        stream.push(piece)
        for stream, piece in zip(streams, pieces, strict=True)
      ]
      yield new
    rest = [stream.push(GeneratedChunk([], [], "length")) for stream in streams]
    if any(rest):  # time has ended them
      yield rest

  def _streams(
    self, requests: Sequence[Request], stop_strings: Sequence[str]
  ) -> list[StreamingDetokenizer]:
    return [
      StreamingDetokenizer(self.tokenizer, stop_strings) for _ in requests
    ]

  def encode(self, prompt: str, control_code: str = "") -> np.ndarray:
    """Turn a prompt into tokens; without any, it is the end of a document.

    Raises:
      UsageError: if it is longer than the model's context, or the training
        text had no such control code.
    """
    tokens = self.tokenizer.encode(prompt)
    if control_code:
      tokens = np.array(
        [find_control_code(control_code, self.tokenizer), *tokens]
      )
    if self._opens_documents or not len(tokens):
      tokens = np.array([EOS, *tokens])
    check_length(self._max_context, tokens)
    return tokens


def no_text(tokenizer: Tokenizer) -> tuple[int, ...]:
  """List the tokens that no text holds; `<eos>` ends it and is not listed."""
  return (
    PAD,
    UNK,
    BOS,
    *range(tokenizer.base_vocab_size, tokenizer.vocab_size),
  )
