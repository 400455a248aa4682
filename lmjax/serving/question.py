# SPDX-License-Identifier: Apache-2.0
"""What clients ask for: the body of a request, read and checked.

The fields are those of OpenAI's completions, all fields of
lmjax.generation.sampling_params.SamplingParams, and a control code. A field
whose value is null counts as absent.
"""

import dataclasses
import difflib
import json
import types
import typing
from typing import Any

from lmjax.errors import UsageError
from lmjax.generation.sampling_params import LARGEST, SMALLEST, SamplingParams
from lmjax.serving.api_error import ApiError

MAX_TOP_LOGPROBS = 5  # alternatives of a token that are told
_MOST_STOPS, _MOST_SAMPLES, _MOST_BIAS = 4, 128, 100
_WORDS = {
  int: "an integer",
  float: "a number of ordinary size",
  bool: "true or false",
  str: "a string of whole characters",
}


@dataclasses.dataclass(frozen=True)
class Question:
  """A request for completions.

  Attributes:
    prompts: at least one.
    sampling: sampling parameters.
    has_seed: whether the client set the seed.
    bias: token → what is added to its logit.
    num_top_logprobs: number of most likely tokens returned per position; None
      to return no log-probabilities.
    echo: whether completions start with their prompts.
    streams: whether text is sent while it is generated.
    counts: whether a stream ends with the numbers of tokens.
  """

  prompts: tuple[str, ...]
  sampling: SamplingParams
  has_seed: bool
  bias: dict[int, float]
  num_top_logprobs: int | None
  echo: bool
  streams: bool
  counts: bool


def read_question(body: bytes, model: str, most_tokens: int) -> Question:
  """Read the body of a request.

  Args:
    body: JSON.
    model: the name that requests must give, if they give one.
    most_tokens: how many they may ask for.

  Raises:
    ApiError: if it cannot be answered.
  """
  fields = _Fields(body)
  name = fields.take("model", str, model)
  if name != model:
    raise ApiError(
      404,
      f"there is no model {name!r} here; ask for {model!r}.",
      "model",
      "model_not_found",
    )
  seed = fields.take("seed", int, None, -(2**63), 2**63 - 1)
  question = Question(
    prompts=fields.take_strings("prompt", ("",)),
    bias=fields.take_bias(),
    sampling=fields.take_sampling(
      num_tokens=fields.take(
        "max_tokens", int, min(16, most_tokens), 1, most_tokens
      ),
      num_samples=fields.take("n", int, 1, 1, _MOST_SAMPLES),
      seed=seed or 0,
      stop=fields.take_stop(),
    ),
    has_seed=seed is not None,
    num_top_logprobs=fields.take("logprobs", int, None, 0, MAX_TOP_LOGPROBS),
    echo=fields.take("echo", bool, False),
    streams=fields.take("stream", bool, False),
    counts=fields.take_counts(),
  )
  fields.check_best_of(question.sampling.num_samples)
  fields.check_none_left()
  if not question.prompts:
    raise ApiError(400, "prompt must hold a text.", "prompt")
  if question.echo and question.num_top_logprobs is not None:
    raise ApiError(
      400,
      "the tokens of prompts are not scored here; leave echo or logprobs away.",
      "echo",
    )
  return question


class _Fields:
  """The fields of a request that were not taken yet."""

  def __init__(self, body: bytes):
    try:
      fields = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
      raise ApiError(400, f"the body is not JSON: {error}.") from error
    if not isinstance(fields, dict):
      raise ApiError(400, "the body must be a JSON object.")
    self._left = {k: v for k, v in fields.items() if v is not None}
    self._known: set[str] = set()

  def take(
    self,
    name: str,
    kind: type,
    default: Any,
    least: int = -(2**31),
    most: int = 2**31 - 1,
  ) -> Any:
    """Take a value of a kind, within limits."""
    value = self._pop(name, None)
    if value is None:
      return default
    value = _typed(name, kind, value)
    if kind is int and not least <= value <= most:
      raise ApiError(400, f"{name} must be between {least} and {most}.", name)
    return value

  def take_strings(
    self, name: str, default: tuple[str, ...]
  ) -> tuple[str, ...]:
    """Take a string or a list of them."""
    value = self._pop(name, default)
    if isinstance(value, str):
      value = [value]
    return _typed(name, tuple[str, ...], value)

  def take_bias(self) -> dict[int, float]:
    """Take biases by token id, as in the OpenAI API."""
    if not isinstance(self._left.get("logit_bias"), dict):
      return {}
    bias = {}
    for token, value in self._pop("logit_bias", {}).items():
      number = _typed("logit_bias", float, value)
      if not token.isdecimal() or len(token) > 9 or abs(number) > _MOST_BIAS:
        raise ApiError(
          400,
          f"logit_bias must have numbers from -{_MOST_BIAS} to {_MOST_BIAS} by "
          "the numbers of tokens.",
          "logit_bias",
        )
      bias[int(token)] = number
    return bias

  def take_stop(self) -> tuple[str, ...]:
    """Take the stop strings."""
    stop = self.take_strings("stop", ())
    if len(stop) > _MOST_STOPS or "" in stop:
      raise ApiError(
        400, f"stop must be up to {_MOST_STOPS} non-empty strings.", "stop"
      )
    return stop

  def take_sampling(self, **taken: Any) -> SamplingParams:
    """Take sampling parameters.

    Args:
      **taken: those that have another name or form in the API.
    """
    kinds = typing.get_type_hints(SamplingParams)
    values = {
      field.name: self.take(field.name, kinds[field.name], field.default)
      for field in dataclasses.fields(SamplingParams)
      if field.name not in taken
    }
    try:
      return SamplingParams(**values, **taken)
    except UsageError as error:
      raise ApiError(400, str(error)) from error

  def take_counts(self) -> bool:
    """Take whether a stream ends with its counts."""
    options = self._pop("stream_options", {})
    if not isinstance(options, dict):
      raise ApiError(400, "stream_options must be an object.", "stream_options")
    return options.get("include_usage") is True

  def check_best_of(self, number: int) -> None:
    """See that no text is to be drawn only to be thrown away."""
    if self.take("best_of", int, number, 1) != number:
      raise ApiError(400, "best_of must be n, or absent.", "best_of")

  def check_none_left(self) -> None:
    """See that all fields are known."""
    self._pop("user", None)
    for name in self._left:
      near = difflib.get_close_matches(name, self._known, 1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ApiError(400, f"there is no field {name!r}.{hint}", name)

  def _pop(self, name: str, default: Any) -> Any:
    self._known.add(name)
    return self._left.pop(name, default)


def _refuse_constant(name: str) -> None:
  raise ValueError(f"{name} is no number there")


def _typed(name: str, kind: Any, value: Any) -> Any:
  """See that a value is of a kind: a type, a tuple of one, or None and one.

  Raises:
    ApiError: if it is not.
  """
  inner = [x for x in typing.get_args(kind) if x is not types.NoneType]
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, list | tuple):
      raise ApiError(400, f"{name} must be a list.", name)
    return tuple(_typed(name, inner[0], each) for each in value)
  if inner:
    return _typed(name, inner[0], value)
  if not _IS[kind](value):
    raise ApiError(400, f"{name} must be {_WORDS[kind]}.", name)
  return float(value) if kind is float else value


def _is_integer(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  number = _is_integer(value) or isinstance(value, float)
  return number and (value == 0 or SMALLEST <= abs(value) <= LARGEST)


def _is_text(value: Any) -> bool:
  """Say whether a value is a string without halves of characters."""
  if not isinstance(value, str):
    return False
  try:
    value.encode()
  except UnicodeEncodeError:
    return False
  return True


_IS = {
  int: _is_integer,
  float: _is_number,
  bool: lambda value: isinstance(value, bool),
  str: _is_text,
}
