# SPDX-License-Identifier: Apache-2.0
"""Infilling: replacing the blanks `___` of a text."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.text.objectives.fill_in_the_middle import MIDDLE, PREFIX, SUFFIX
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.requests import Request, check_length
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.types import Array, PyTree

BLANK = "___"


class Candidate(NamedTuple):
  """A token for a blank, and its probability."""

  text: str
  probability: float


class Infilled(NamedTuple):
  """Texts without blanks.

  Attributes:
    texts: one text per sample.
    candidates: the most likely tokens of each blank, if blanks are tokens.
  """

  texts: list[str]
  candidates: list[list[Candidate]]


class MaskInfiller:
  """Fill blanks, one token each, with a masked language model.

  Args:
    model: an encoder with the contract of lmjax.models.
    tokenizer: the tokenizer that it was trained with.
  """

  def __init__(self, model: nn.Module, tokenizer: Tokenizer):
    self._model, self._tokenizer = model, tokenizer
    self._mask = tokenizer.mask_id
    self._excluded = jnp.array((*tokenizer.non_text_ids, tokenizer.eos_id))
    self._probabilities = jax.jit(self._predict)

  def __call__(
    self, variables: PyTree, text: str, params: SamplingParams
  ) -> Infilled:
    """Fill the blanks of a text; `______` is two of them.

    Args:
      variables: variables of the model.
      text: a text with blanks.
      params: its `num_samples` is the number of candidates. Nothing is sampled,
        so that the others do not apply.

    Returns:
      The candidates of each blank while all others are blank too, and the text
      with blanks filled one by one, the most certain first.

    Raises:
      UsageError: if there is no blank.
    """
    tokens = self.encode(text)
    (positions,) = np.nonzero(tokens == self._mask)
    candidates = []
    while len(blanks := np.flatnonzero(tokens == self._mask)):
      probs_TV = np.array(self._probabilities(variables, tokens))
      if not candidates:
        candidates = [
          self._candidates(probs_TV[i], params.num_samples) for i in blanks
        ]
      most_certain = blanks[probs_TV[blanks].max(axis=1).argmax()]
      tokens[most_certain] = probs_TV[most_certain].argmax()
    fillings = [self._tokenizer.decode([token]) for token in tokens[positions]]
    parts = split_at_blanks(text, self._tokenizer)
    return Infilled([fill_blanks(parts, fillings)], candidates)

  def encode(self, text: str) -> np.ndarray:
    """Return the tokens of a text, with `<mask>` for every blank.

    Raises:
      UsageError: if there is no blank, or the model's context is too short.
    """
    tokens = []
    for part in split_at_blanks(text, self._tokenizer):
      tokens += [self._tokenizer.encode(part), [self._mask]]
    tokens = np.concatenate(tokens[:-1]).astype(np.int32)
    check_length(self._model.max_context, tokens)
    return tokens

  def _candidates(self, probs_V: np.ndarray, number: int) -> list[Candidate]:
    order = np.argsort(-probs_V, kind="stable")[:number]
    return [
      Candidate(self._tokenizer.decode([token]), float(probs_V[token]))
      for token in order
    ]

  def _predict(self, variables: PyTree, tokens_T: Array) -> Array:
    hidden, _ = self._model.apply(variables, tokens_T[None])
    logits_BTV = self._model.apply(variables, hidden, method="logits")
    logits_TV = logits_BTV[0].at[:, self._excluded].set(-jnp.inf)
    return jax.nn.softmax(logits_TV)


class FIMInfiller:
  """Fill one blank of any length with a fill-in-the-middle model.

  Bavarian et al. 2022 (arXiv:2207.14255).

  Args:
    model: a decoder with the contract of lmjax.models.
    tokenizer: the tokenizer that it was trained with.
  """

  def __init__(self, model: nn.Module, tokenizer: Tokenizer):
    self._sampler = TextSampler(model, tokenizer)
    self._model, self._tokenizer = model, tokenizer

  def __call__(
    self, variables: PyTree, text: str, params: SamplingParams
  ) -> Infilled:
    """Fill the blank of a text.

    Args:
      variables: variables of the model.
      text: a text with one blank.
      params: see SamplingParams. `num_tokens` is the maximum length of the
        blank, which also ends where the model's context does.

    Raises:
      UsageError: if there is not exactly one blank.
    """
    tokens = self.encode(text)
    num_tokens = params.num_tokens
    if self._model.max_context is not None:
      # A refill of the context would forget the prefix.
      num_tokens = min(num_tokens, self._model.max_context - len(tokens) + 1)
    requests = _samples(params, tokens, num_tokens)
    sampled = _sample(self._sampler, variables, requests, params)
    parts = self._prefix_and_suffix(text)
    return Infilled([fill_blanks(parts, [new.text]) for new in sampled], [])

  def encode(self, text: str) -> np.ndarray:
    """Return the tokens of a text: `<prefix>` … `<suffix>` … `<middle>`.

    Raises:
      UsageError: if there is not exactly one blank, or the model's context is
        too short.
    """
    encode, special = self._tokenizer.encode, self._tokenizer.special_token_id
    prefix, suffix = self._prefix_and_suffix(text)
    tokens = [
      [special(PREFIX)],
      encode(prefix),
      [special(SUFFIX)],
      encode(suffix),
      [special(MIDDLE)],
    ]
    tokens = np.concatenate(tokens).astype(np.int32)
    check_length(self._model.max_context, tokens)
    return tokens

  def _prefix_and_suffix(self, text: str) -> tuple[str, str]:
    prefix, *suffixes = split_at_blanks(text, self._tokenizer)
    if len(suffixes) > 1:
      raise UsageError(
        f"the text has {len(suffixes)} blanks {BLANK}, but fill-in-the-middle "
        "models fill one; leave one blank."
      )
    return prefix, suffixes[0]


class SpanInfiller:
  """Fill blanks of any length with a span corruption model (T5).

  Raffel et al. 2020 (arXiv:1910.10683).

  Args:
    model: an encoder–decoder with the contract of lmjax.models.
    tokenizer: the tokenizer that it was trained with.
  """

  def __init__(self, model: nn.Module, tokenizer: Tokenizer):
    self._sampler = TextSampler(model, tokenizer, allow_special_tokens=True)
    self._model, self._tokenizer = model, tokenizer

  def __call__(
    self, variables: PyTree, text: str, params: SamplingParams
  ) -> Infilled:
    """Fill the blanks of a text.

    Args:
      variables: variables of the model.
      text: a text with blanks.
      params: see SamplingParams. `num_tokens` is the maximum length of all
        blanks together.

    Raises:
      UsageError: if there is no blank, or more than the tokenizer has sentinel
        tokens.
    """
    num_tokens = params.num_tokens
    if self._model.max_context is not None:
      num_tokens = min(num_tokens, self._model.max_context)
    source = self.encode(text)
    first = np.array([self._tokenizer.bos_id])
    requests = _samples(params, first, num_tokens, source)
    sampled = _sample(self._sampler, variables, requests, params)
    parts = split_at_blanks(text, self._tokenizer)
    return Infilled(
      [fill_blanks(parts, self._split_fillings(x.tokens)) for x in sampled], []
    )

  def encode(self, text: str) -> np.ndarray:
    """Return the tokens of a text, with a sentinel token for every blank.

    Raises:
      UsageError: if there is no blank, more than the tokenizer has sentinel
        tokens, or the model's context is too short.
    """
    first, *others = split_at_blanks(text, self._tokenizer)
    num_sentinels = len(self._tokenizer.special_tokens)
    if len(others) > num_sentinels:
      raise UsageError(
        f"the text has {len(others)} blanks {BLANK}, but this model fills at "
        f"most {num_sentinels}; leave fewer blanks."
      )
    tokens = [self._tokenizer.encode(first)]
    for sentinel, part in enumerate(others, self._tokenizer.base_vocab_size):
      tokens += [[sentinel], self._tokenizer.encode(part)]
    tokens = np.concatenate([*tokens, [self._tokenizer.eos_id]])
    tokens = tokens.astype(np.int32)
    check_length(self._model.max_context, tokens)
    return tokens

  def _split_fillings(self, sampled: list[int]) -> list[str]:
    """Return the text after each sentinel, in the order of the sentinels."""
    fillings = [[] for _ in self._tokenizer.special_tokens]
    filling = []
    for token in sampled:
      if token >= self._tokenizer.base_vocab_size:
        filling = fillings[token - self._tokenizer.base_vocab_size]
      else:
        filling.append(token)
    return [self._tokenizer.decode(tokens) for tokens in fillings]


def split_at_blanks(text: str, tokenizer: Tokenizer) -> list[str]:
  """Split a text at its blanks.

  >>> split_at_blanks("the ___ of it", tokenizer)
  ["the ", " of it"]

  BPE tokens include the space before a word, so that a blank replaces it too.

  Raises:
    UsageError: if there is no blank.
  """
  parts = re.split(f" ?{BLANK}" if tokenizer.kind == "bpe" else BLANK, text)
  if len(parts) == 1:
    raise UsageError(
      f"the text {text!r} has no blank; write {BLANK} where text is missing."
    )
  return parts


def fill_blanks(parts: Sequence[str], fillings: Iterable[str]) -> str:
  """Join the parts of a text with the first fillings between them.

  >>> fill_blanks(["the ", " of ", ""], ["size", "it"])
  "the size of it"
  """
  first, *others = parts
  pairs = zip(fillings, others, strict=False)
  return first + "".join(filling + part for filling, part in pairs)


def _samples(
  params: SamplingParams,
  tokens: np.ndarray,
  num_tokens: int,
  source: np.ndarray | None = None,
) -> list[Request]:
  """Return one request for each sample."""
  return [
    Request(
      tokens,
      num_tokens,
      params.seed,
      sample,
      source,
      stop_strings=tuple(params.stop),
    )
    for sample in range(params.num_samples)
  ]


def _sample(
  sampler: TextSampler,
  variables: PyTree,
  requests: Sequence[Request],
  params: SamplingParams,
) -> list[StreamingDetokenizer]:
  """Sample the text of each request."""
  processors = params.logits_processors(sampler.tokenizer)
  detokenizers = [
    StreamingDetokenizer(sampler.tokenizer, x.stop_strings) for x in requests
  ]
  for _ in sampler.stream_requests(
    variables, requests, sampler.chain(requests, processors), detokenizers
  ):
    pass
  return detokenizers
