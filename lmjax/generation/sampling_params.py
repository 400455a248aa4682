# SPDX-License-Identifier: Apache-2.0
"""How tokens are chosen, as users say it: numbers by their usual names."""

import dataclasses
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmjax.data.tokenizers import EOS, UNK, Tokenizer
from lmjax.decoding.filters import (
  BadWords,
  CountPenalty,
  Epsilon,
  Eta,
  Filter,
  Forced,
  Greedy,
  LogitBias,
  MinLength,
  MinP,
  Mirostat,
  NoRepeatNgrams,
  RepetitionPenalty,
  Temperature,
  TopK,
  TopP,
  Typical,
)
from lmjax.errors import UsageError
from lmjax.generation.generator import MOST

# Beyond these, numbers become 0 or infinite in float32 sooner or later.
SMALLEST, LARGEST = 1e-9, 1e9

_HOLDS = dict(
  above=operator.gt,
  at_least=operator.ge,
  at_most=operator.le,
  below=operator.lt,
)


def _setting(default: Any, text: str, **limits: float) -> dataclasses.Field:
  """Declare a setting; limits are those of _HOLDS, and for numbers alone."""
  return dataclasses.field(
    default=default, metadata=dict(help=text, limits=limits)
  )


@dataclasses.dataclass(frozen=True)
class SamplingParams:
  """What the next token is chosen by; the defaults draw from the model as is.

  Each field is a setting of samplers and a flag of scripts/sample.py, which
  says `help` of it. Names are those of transformers and of OpenAI's API.

  Raises:
    UsageError: if a number is out of range, or a text is none.
  """

  temperature: float = _setting(1.0, "0: most likely only.", at_least=0)
  top_k: int = _setting(0, "Choose among the k best; 0: all.", at_least=0)
  top_p: float = _setting(
    1.0, "Choose among probability p.", above=0, at_most=1
  )
  min_p: float = _setting(
    0.0, "Least probability, as a share of the best.", at_least=0, at_most=1
  )
  typical_p: float = _setting(
    1.0, "Choose among the most typical of probability p.", above=0, at_most=1
  )
  epsilon_cutoff: float = _setting(
    0.0, "Least probability; 0: none.", at_least=0, below=1
  )
  eta_cutoff: float = _setting(
    0.0, "Least probability, less where much may come.", at_least=0, below=1
  )
  mirostat_tau: float = _setting(
    0.0, "Surprise to hold, in bits a token; 0: any.", at_least=0
  )
  mirostat_eta: float = _setting(
    0.1, "How fast mirostat follows.", above=0, at_most=1
  )
  repetition_penalty: float = _setting(
    1.0, "Divides the logits of what has occurred.", above=0
  )
  presence_penalty: float = _setting(
    0.0, "Subtracted from the logits of what was drawn."
  )
  frequency_penalty: float = _setting(
    0.0, "The same, for each time that it was drawn."
  )
  no_repeat_ngram_size: int = _setting(
    0,
    "Never write so many tokens in a row twice; 0: do.",
    at_least=0,
    at_most=64,  # more takes longer to compile
  )
  min_tokens: int = _setting(0, "Tokens before a text may end.", at_least=0)
  logit_bias: tuple[str, ...] = _setting(
    (), "TOKEN=NUMBER: added to the logit of a token, such as ' the=-2.5'."
  )
  bad_words: tuple[str, ...] = _setting((), "Words never to write.")
  forced: str = _setting("", "Text to begin with.")

  def __post_init__(self):
    """Check the settings."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(field.default, str | tuple):
        _check_text(field, value)
      else:
        _check_number(field, value)
    for entry in self.logit_bias:
      _parse_bias(entry)

  def filters(self, tokenizer: Tokenizer) -> tuple[Filter, ...]:
    """Return what is said as filters, in the order of lmjax.decoding.filters.

    Args:
      tokenizer: what turns texts into tokens.

    Raises:
      UsageError: if the tokenizer does not know what is forced, or has no
        token for what is biased.
    """
    filters = [*self._scores(tokenizer), *self._rules(tokenizer)]
    if not self.temperature:
      return (*filters, Greedy())
    return (
      *filters,
      Temperature(self.temperature),
      *self._truncations(tokenizer),
    )

  def _scores(self, tokenizer: Tokenizer) -> list[Filter]:
    filters = []
    if self.logit_bias:
      bias_V = np.zeros(tokenizer.vocab_size, np.float32)
      for text, number in map(_parse_bias, self.logit_bias):
        bias_V[_token(text, tokenizer)] = number
      filters.append(LogitBias(bias_V))
    if self.repetition_penalty != 1:
      filters.append(RepetitionPenalty(self.repetition_penalty))
    if self.presence_penalty or self.frequency_penalty:
      filters.append(
        CountPenalty(self.presence_penalty, self.frequency_penalty)
      )
    return filters

  def _rules(self, tokenizer: Tokenizer) -> list[Filter]:
    filters = []
    if self.no_repeat_ngram_size:
      filters.append(NoRepeatNgrams(self.no_repeat_ngram_size))
    if words := _words(self.bad_words, tokenizer):
      filters.append(BadWords.of(words))
    if self.min_tokens:
      filters.append(MinLength(self.min_tokens, (EOS,)))
    if self.forced:
      filters.append(Forced(np.array(_tokens(self.forced, tokenizer))))
    return filters

  def _truncations(self, tokenizer: Tokenizer) -> list[Filter]:
    filters = []
    if self.top_k:
      filters.append(TopK(min(self.top_k, tokenizer.vocab_size)))
    if self.top_p < 1:
      filters.append(TopP(self.top_p))
    if self.min_p:
      filters.append(MinP(self.min_p))
    if self.typical_p < 1:
      filters.append(Typical(self.typical_p))
    if self.epsilon_cutoff:
      filters.append(Epsilon(self.epsilon_cutoff))
    if self.eta_cutoff:
      filters.append(Eta(self.eta_cutoff))
    if self.mirostat_tau:
      filters.append(Mirostat(self.mirostat_tau, self.mirostat_eta))
    return filters


def _check_number(field: dataclasses.Field, value: Any) -> None:
  is_whole = isinstance(field.default, int)
  kind = numbers.Integral if is_whole else numbers.Real
  right = isinstance(value, kind) and not isinstance(value, bool)
  if not right or not math.isfinite(value):
    wanted = "a whole number" if is_whole else "a finite number"
    raise UsageError(f"{field.name}={value} must be {wanted}.")
  least, most = (1, MOST) if is_whole else (SMALLEST, LARGEST)
  if value and not least <= abs(value) <= most:
    raise UsageError(
      f"{field.name}={value} must be 0, or from {least} to {most} in size."
    )
  limits = field.metadata["limits"].items()
  if not all(_HOLDS[limit](value, bound) for limit, bound in limits):
    said = " and ".join(f"{k.replace('_', ' ')} {x}" for k, x in limits)
    raise UsageError(f"{field.name}={value} must be {said}.")


def _check_text(field: dataclasses.Field, value: Any) -> None:
  if isinstance(field.default, str):
    if not isinstance(value, str):
      raise UsageError(f"{field.name}={value} must be a text.")
  elif not isinstance(value, tuple | list) or not all(
    isinstance(text, str) and text for text in value
  ):
    raise UsageError(f"{field.name}={value} must be texts that are not empty.")


def _parse_bias(entry: str) -> tuple[str, float]:
  """Divide TOKEN=NUMBER."""
  text, _, said = entry.rpartition("=")
  try:
    number = float(said)
  except ValueError:
    number = math.nan
  if not text or not abs(number) <= LARGEST:
    raise UsageError(
      f"logit_bias={entry!r} must be a token, = and a number of ordinary size."
    )
  return text, number


def _tokens(text: str, tokenizer: Tokenizer) -> Sequence[int]:
  """Turn a text into tokens that all stand for something."""
  tokens = tokenizer.encode(text).tolist()
  if not tokens or UNK in tokens:
    raise UsageError(
      f"{text!r} is not in the vocabulary; choose a text that the model knows."
    )
  return tokens


def _words(words: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
  """Turn words into tokens, each as it begins a text and as it goes on.

  Words that hold what the tokenizer does not know are never written anyway.
  """
  texts = [*words, *(" " + word for word in words)]
  found = {tuple(tokenizer.encode(text).tolist()) for text in texts}
  return sorted(tokens for tokens in found if tokens and UNK not in tokens)


def _token(text: str, tokenizer: Tokenizer) -> int:
  """Turn a text into a token."""
  tokens = _tokens(text, tokenizer)
  if len(tokens) > 1:
    raise UsageError(
      f"logit_bias of {text!r} needs one token, and it has {len(tokens)}."
    )
  return tokens[0]
