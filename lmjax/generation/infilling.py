# SPDX-License-Identifier: Apache-2.0
"""Filling blanks: a text with `___` in it, and what belongs there."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.text.objectives.fill_in_the_middle import MIDDLE, PREFIX, SUFFIX
from lmjax.data.text.objectives.masking import MASK
from lmjax.data.tokenizers import BOS, EOS, Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.generator import Request, check_length, check_positive
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler, no_text
from lmjax.types import Array, PyTree

BLANK = "___"


class Candidate(NamedTuple):
  """A token that may stand in a blank, and its probability."""

  text: str
  probability: float


class Filled(NamedTuple):
  """What was made of a text with blanks.

  Attributes:
    texts: the text without blanks; several of them if they were drawn.
    candidates: the best tokens for each blank, if blanks are tokens.
  """

  texts: list[str]
  candidates: list[list[Candidate]]


class MaskInfiller:
  """Fill blanks, one token each, with a masked language model.

  Args:
    model: an encoder, with the contract of lmjax.models.
    tokenizer: the one that it was trained with.
  """

  def __init__(self, model: nn.Module, tokenizer: Tokenizer):
    self._model, self._tokenizer = model, tokenizer
    self._mask = tokenizer.extra(MASK)
    self._impossible = jnp.array((*no_text(tokenizer), EOS))
    self._chances = jax.jit(self._predict)

  def __call__(
    self, variables: PyTree, text: str, number: int = 5, **sampling: Any
  ) -> Filled:
    """Fill the blanks of a text; `______` is two of them.

    Args:
      variables: the model's variables.
      text: a text with blanks.
      number: how many candidates to name.
      **sampling: read by other fillers; nothing is drawn here.

    Returns:
      The candidates of each blank while all others are blank too, and the text
      with blanks filled one after the other, the surest first.

    Raises:
      UsageError: if there is no blank, or `number` is below 1.
    """
    del sampling
    check_positive(number=number)
    tokens = self.encode(text)
    (places,) = np.nonzero(tokens == self._mask)
    candidates = []
    while len(blanks := np.flatnonzero(tokens == self._mask)):
      chances_TV = np.array(self._chances(variables, tokens))
      if not candidates:
        candidates = [self._best(chances_TV[i], number) for i in blanks]
      surest = blanks[chances_TV[blanks].max(axis=1).argmax()]
      tokens[surest] = chances_TV[surest].argmax()
    answers = [self._tokenizer.decode([token]) for token in tokens[places]]
    return Filled([put_in(split(text, self._tokenizer), answers)], candidates)

  def encode(self, text: str) -> np.ndarray:
    """Turn a text into tokens, with `<mask>` for every blank.

    Raises:
      UsageError: if there is no blank, or the model's context is too short.
    """
    tokens = []
    for part in split(text, self._tokenizer):
      tokens += [self._tokenizer.encode(part), [self._mask]]
    tokens = np.concatenate(tokens[:-1]).astype(np.int32)
    check_length(self._model.max_context, tokens)
    return tokens

  def _best(self, chances_V: np.ndarray, number: int) -> list[Candidate]:
    order = np.argsort(-chances_V, kind="stable")[:number]
    return [
      Candidate(self._tokenizer.decode([token]), float(chances_V[token]))
      for token in order
    ]

  def _predict(self, variables: PyTree, tokens_T: Array) -> Array:
    hidden, _ = self._model.apply(variables, tokens_T[None])
    logits_BTV = self._model.apply(variables, hidden, method="logits")
    logits_TV = logits_BTV[0].at[:, self._impossible].set(-jnp.inf)
    return jax.nn.softmax(logits_TV)


class FIMInfiller:
  """Fill one blank of any length with a model that learned it.

  Args:
    model: a decoder, with the contract of lmjax.models.
    tokenizer: the one that it was trained with.
  """

  def __init__(self, model: nn.Module, tokenizer: Tokenizer):
    self._sampler = TextSampler(model, tokenizer)
    self._model, self._tokenizer = model, tokenizer

  def __call__(
    self,
    variables: PyTree,
    text: str,
    number: int = 1,
    num_tokens: int = 100,
    seed: int = 0,
    **sampling: Any,
  ) -> Filled:
    """Fill the blank of a text.

    Args:
      variables: the model's variables.
      text: a text with one blank.
      number: how many texts to draw.
      num_tokens: how many tokens the blank stands for at most; it ends where
        the model's context does.
      seed: the same seed draws the same text.
      **sampling: fields of lmjax.generation.sampling_params.SamplingParams.

    Raises:
      UsageError: if there is not one blank, or a number is out of range.
    """
    check_positive(number=number)
    filters = SamplingParams(**sampling).filters(self._tokenizer)
    tokens = self.encode(text)
    if (
      self._model.max_context is not None
    ):  # what was before it would be forgotten
      num_tokens = min(num_tokens, self._model.max_context - len(tokens) + 1)
    requests = [Request(tokens, num_tokens, seed, i) for i in range(number)]
    drawn = self._sampler.draw(variables, requests, filters)
    return Filled([put_in(self._divide(text), [new.text]) for new in drawn], [])

  def encode(self, text: str) -> np.ndarray:
    """Turn a text into tokens: prefix and suffix, each behind its mark.

    Raises:
      UsageError: if there is not one blank, or the model's context is too
        short.
    """
    encode, mark = self._tokenizer.encode, self._tokenizer.extra
    prefix, suffix = self._divide(text)
    tokens = [[mark(PREFIX)], encode(prefix), [mark(SUFFIX)], encode(suffix)]
    tokens = np.concatenate([*tokens, [mark(MIDDLE)]]).astype(np.int32)
    check_length(self._model.max_context, tokens)
    return tokens

  def _divide(self, text: str) -> tuple[str, str]:
    prefix, *suffixes = split(text, self._tokenizer)
    if len(suffixes) > 1:
      raise UsageError(
        f"the text has {len(suffixes)} blanks {BLANK} and this model fills one."
      )
    return prefix, suffixes[0]


class SpanInfiller:
  """Fill blanks of any length with a model that learned span corruption.

  Args:
    model: an encoder–decoder, with the contract of lmjax.models.
    tokenizer: the one that it was trained with.
  """

  def __init__(self, model: nn.Module, tokenizer: Tokenizer):
    self._sampler = TextSampler(model, tokenizer, writes_marks=True)
    self._model, self._tokenizer = model, tokenizer

  def __call__(
    self,
    variables: PyTree,
    text: str,
    number: int = 1,
    num_tokens: int = 100,
    seed: int = 0,
    **sampling: Any,
  ) -> Filled:
    """Fill the blanks of a text; see FIMInfiller.

    Raises:
      UsageError: if there is no blank, or more than the tokenizer has marks,
        or a number is out of range.
    """
    check_positive(number=number)
    if (
      self._model.max_context is not None
    ):  # what was before it would be forgotten
      num_tokens = min(num_tokens, self._model.max_context)
    source = self.encode(text)
    requests = [
      Request(np.array([BOS]), num_tokens, seed, i, source)
      for i in range(number)
    ]
    filters = SamplingParams(**sampling).filters(self._tokenizer)
    drawn = self._sampler.draw(variables, requests, filters)
    parts = split(text, self._tokenizer)
    return Filled([put_in(parts, self._answers(x.tokens)) for x in drawn], [])

  def encode(self, text: str) -> np.ndarray:
    """Turn a text into tokens, with a mark of its own for every blank.

    Raises:
      UsageError: if there is no blank, more than the tokenizer has marks, or
        the model's context is too short.
    """
    first, *others = split(text, self._tokenizer)
    if len(others) > len(self._tokenizer.extras):
      raise UsageError(
        f"the text has {len(others)} blanks {BLANK} and this model fills "
        f"{len(self._tokenizer.extras)} at most."
      )
    tokens = [self._tokenizer.encode(first)]
    for mark, part in enumerate(others, self._tokenizer.num_plain):
      tokens += [[mark], self._tokenizer.encode(part)]
    tokens = np.concatenate([*tokens, [EOS]]).astype(np.int32)
    check_length(self._model.max_context, tokens)
    return tokens

  def _answers(self, drawn: list[int]) -> list[str]:
    """Return what was drawn behind each mark, in the order of the marks."""
    answers = [[] for _ in self._tokenizer.extras]
    answer = []
    for token in drawn:
      if token >= self._tokenizer.num_plain:
        answer = answers[token - self._tokenizer.num_plain]
      else:
        answer.append(token)
    return [self._tokenizer.decode(tokens) for tokens in answers]


def split(text: str, tokenizer: Tokenizer) -> list[str]:
  """Cut a text at its blanks.

  BPE has the space before a word in the word's own token, which the blank
  stands for.

  Raises:
    UsageError: if there is no blank.
  """
  parts = re.split(f" ?{BLANK}" if tokenizer.kind == "bpe" else BLANK, text)
  if len(parts) == 1:
    raise UsageError(
      f"the text {text!r} has no blank; write {BLANK} where it has one."
    )
  return parts


def put_in(parts: Sequence[str], answers: Iterable[str]) -> str:
  """Put an answer between each part of a text and the next; the first count.

  >>> put_in(["the ", " of ", ""], ["size", "it"])
  "the size of it"
  """
  first, *others = parts
  pairs = zip(answers, others, strict=False)
  return first + "".join(answer + part for answer, part in pairs)


# Task → what fills blanks with a model that learned it.
FILLERS = {
  "masked_lm": MaskInfiller,
  "fill_in_the_middle": FIMInfiller,
  "span_corruption": SpanInfiller,
}
