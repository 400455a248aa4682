# SPDX-License-Identifier: Apache-2.0
"""Parameters of sampling by their usual names, as logits processors."""

import dataclasses
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import (
  BadWords,
  CountPenalty,
  Epsilon,
  Eta,
  ForcedPrefix,
  Greedy,
  LogitBias,
  LogitsProcessor,
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
from lmjax.errors import INT32_MAX, UsageError

# Beyond these, values become 0 or infinite in float32 sooner or later.
SMALLEST, LARGEST = 1e-9, 1e9

_LIMITS = dict(
  above=operator.gt,
  at_least=operator.ge,
  at_most=operator.le,
  below=operator.lt,
)


def _field(default: Any, text: str, **limits: float) -> dataclasses.Field:
  """Declare a field with its help text and the limits of a number."""
  return dataclasses.field(
    default=default, metadata=dict(help=text, limits=limits)
  )


@dataclasses.dataclass(frozen=True)
class SamplingParams:
  """How much is generated, and which tokens; by default samples of the model.

  Names are those of transformers, vLLM and the OpenAI API. Each field is also a
  flag of scripts/sample.py with the same help text.

  Raises:
    UsageError: if a value is out of range or of another type.
  """

  num_tokens: int = _field(200, "Maximum number of new tokens.", at_least=1)
  num_samples: int = _field(1, "Number of samples per prompt.", at_least=1)
  seed: int = _field(
    0,
    "Random seed; the same seed gives the same text.",
    at_least=-(2**63),
    at_most=2**63 - 1,
  )
  stop: tuple[str, ...] = _field((), "Stop string, before which a text ends.")
  control_code: str = _field("", "Control code of the text.")
  temperature: float = _field(
    1.0, "Sampling temperature; 0 selects the most likely token.", at_least=0
  )
  top_k: int = _field(
    0, "Sample from the k most likely tokens; 0 disables.", at_least=0
  )
  top_p: float = _field(
    1.0,
    "Sample from the most likely tokens with this total probability.",
    above=0,
    at_most=1,
  )
  min_p: float = _field(
    0.0,
    "Minimum probability, relative to that of the most likely token.",
    at_least=0,
    at_most=1,
  )
  typical_p: float = _field(
    1.0,
    "Sample from the most typical tokens with this total probability.",
    above=0,
    at_most=1,
  )
  epsilon_cutoff: float = _field(
    0.0, "Minimum probability; 0 disables.", at_least=0, below=1
  )
  eta_cutoff: float = _field(
    0.0,
    "Minimum probability, lower where entropy is high; 0 disables.",
    at_least=0,
    below=1,
  )
  mirostat_tau: float = _field(
    0.0,
    "Mirostat target surprise in bits per token; 0 disables.",
    at_least=0,
  )
  mirostat_eta: float = _field(
    0.1, "Mirostat learning rate.", above=0, at_most=1
  )
  repetition_penalty: float = _field(
    1.0, "Divides positive logits of tokens that occurred.", above=0
  )
  presence_penalty: float = _field(
    0.0, "Subtracted from the logits of tokens that were generated."
  )
  frequency_penalty: float = _field(
    0.0, "Subtracted once for each time that a token was generated."
  )
  no_repeat_ngram_size: int = _field(
    0,
    "Size of the n-grams that must not occur twice; 0 disables.",
    at_least=0,
    at_most=64,  # more takes longer to compile
  )
  min_tokens: int = _field(
    0, "Minimum number of new tokens before the end.", at_least=0
  )
  logit_bias: tuple[str, ...] = _field(
    (), "TOKEN=NUMBER, added to the logit of a token; for example ' the=-2.5'."
  )
  bad_words: tuple[str, ...] = _field((), "Word that is never generated.")
  forced: str = _field("", "Text that the generated text starts with.")

  def __post_init__(self):
    """Check the values."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(field.default, str | tuple):
        _check_text(field, value)
      else:
        _check_number(field, value)
    for entry in self.logit_bias:
      _parse_bias(entry)

  def logits_processors(
    self, tokenizer: Tokenizer
  ) -> tuple[LogitsProcessor, ...]:
    """Return the logits processors in the order of their package.

    Args:
      tokenizer: tokenizer of the generated text.

    Raises:
      UsageError: if a text has tokens that are not in the vocabulary, or a
        biased text is not a single token.
    """
    processors = [
      *self._score_processors(tokenizer),
      *self._constraints(tokenizer),
    ]
    if not self.temperature:
      return (*processors, Greedy())
    return (
      *processors,
      Temperature(self.temperature),
      *self._truncations(tokenizer),
    )

  def _score_processors(self, tokenizer: Tokenizer) -> list[LogitsProcessor]:
    processors = []
    if self.logit_bias:
      bias_V = np.zeros(tokenizer.vocab_size, np.float32)
      for text, number in map(_parse_bias, self.logit_bias):
        bias_V[_encode_token(text, tokenizer)] = number
      processors.append(LogitBias(bias_V))
    if self.repetition_penalty != 1:
      processors.append(RepetitionPenalty(self.repetition_penalty))
    if self.presence_penalty or self.frequency_penalty:
      processors.append(
        CountPenalty(self.presence_penalty, self.frequency_penalty)
      )
    return processors

  def _constraints(self, tokenizer: Tokenizer) -> list[LogitsProcessor]:
    processors = []
    if self.no_repeat_ngram_size:
      processors.append(NoRepeatNgrams(self.no_repeat_ngram_size))
    if words := _encode_words(self.bad_words, tokenizer):
      processors.append(BadWords.of(words))
    if self.min_tokens:
      processors.append(MinLength(self.min_tokens, (tokenizer.eos_id,)))
    if self.forced:
      processors.append(ForcedPrefix(np.array(_encode(self.forced, tokenizer))))
    return processors

  def _truncations(self, tokenizer: Tokenizer) -> list[LogitsProcessor]:
    processors = []
    if self.top_k:
      processors.append(TopK(min(self.top_k, tokenizer.vocab_size)))
    if self.top_p < 1:
      processors.append(TopP(self.top_p))
    if self.min_p:
      processors.append(MinP(self.min_p))
    if self.typical_p < 1:
      processors.append(Typical(self.typical_p))
    if self.epsilon_cutoff:
      processors.append(Epsilon(self.epsilon_cutoff))
    if self.eta_cutoff:
      processors.append(Eta(self.eta_cutoff))
    if self.mirostat_tau:
      processors.append(Mirostat(self.mirostat_tau, self.mirostat_eta))
    return processors


def _check_number(field: dataclasses.Field, value: Any) -> None:
  is_integer = isinstance(field.default, int)
  kind = numbers.Integral if is_integer else numbers.Real
  is_valid = isinstance(value, kind) and not isinstance(value, bool)
  if not is_valid or not math.isfinite(value):
    expected = "an integer" if is_integer else "a finite number"
    raise UsageError(f"{field.name}={value} must be {expected}.")
  limits = field.metadata["limits"]
  if not all(_LIMITS[limit](value, x) for limit, x in limits.items()):
    expected = " and ".join(
      f"{k.replace('_', ' ')} {x:,}" for k, x in limits.items()
    )
    raise UsageError(f"{field.name}={value} must be {expected}.")
  if is_integer:
    # The seed is used modulo 2 ** 32; all others as int32.
    if value > limits.get("at_most", INT32_MAX):
      raise UsageError(f"{field.name}={value} must be at most {INT32_MAX:,}.")
  elif value and not SMALLEST <= abs(value) <= LARGEST:
    raise UsageError(
      f"{field.name}={value} must be 0, or of a size from {SMALLEST} to "
      f"{LARGEST:,.0f}."
    )


def _check_text(field: dataclasses.Field, value: Any) -> None:
  if isinstance(field.default, str):
    if not isinstance(value, str):
      raise UsageError(f"{field.name}={value} must be a string.")
  elif not isinstance(value, tuple | list) or not all(
    isinstance(text, str) and text for text in value
  ):
    raise UsageError(
      f"{field.name}={value} must be a sequence of non-empty strings."
    )


def _parse_bias(entry: str) -> tuple[str, float]:
  """Parse TOKEN=NUMBER."""
  text, _, digits = entry.rpartition("=")
  try:
    number = float(digits)
  except ValueError:
    number = math.nan
  if not text or not abs(number) <= LARGEST:
    raise UsageError(
      f"logit_bias={entry!r} must be TOKEN=NUMBER with a number up to "
      f"{LARGEST:,.0f}."
    )
  return text, number


def _encode(text: str, tokenizer: Tokenizer) -> Sequence[int]:
  """Return the tokens of a text, all of which must be in the vocabulary."""
  tokens = tokenizer.encode(text).tolist()
  if not tokens or tokenizer.unk_id in tokens:
    raise UsageError(
      f"{text!r} is not in the vocabulary; choose text that the tokenizer of "
      "the run can encode."
    )
  return tokens


def _encode_words(
  words: Sequence[str], tokenizer: Tokenizer
) -> list[tuple[int, ...]]:
  """Return the tokens of words, with and without a space before them.

  Words with tokens outside the vocabulary are omitted: they cannot be generated
  anyway.
  """
  texts = [*words, *(" " + word for word in words)]
  found = {tuple(tokenizer.encode(text).tolist()) for text in texts}
  return sorted(x for x in found if x and tokenizer.unk_id not in x)


def _encode_token(text: str, tokenizer: Tokenizer) -> int:
  """Return the only token of a text."""
  tokens = _encode(text, tokenizer)
  if len(tokens) > 1:
    raise UsageError(
      f"logit_bias of {text!r} must name one token, but it has {len(tokens)}."
    )
  return tokens[0]
