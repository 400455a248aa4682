# SPDX-License-Identifier: Apache-2.0
"""Parsing and validation of completion requests.

The fields are those of the OpenAI completions API and all fields of
lmjax.generation.sampling_params.SamplingParams. A field whose value is null
counts as absent.
"""

import dataclasses
import difflib
import json
import types
import typing
from typing import Any

from lmjax.errors import INT32_MAX, UsageError
from lmjax.generation.sampling_params import LARGEST, SMALLEST, SamplingParams
from lmjax.serving.api_error import ApiError

# Limits of the OpenAI API.
MAX_TOP_LOGPROBS = 5
_MAX_STOPS, _MAX_SAMPLES, _MAX_BIAS = 4, 128, 100
_EXPECTED = {
  int: "an integer",
  float: f"0 or a number of a size from {SMALLEST} to {LARGEST:.0e}",
  bool: "true or false",
  str: "a string of valid Unicode",
}


@dataclasses.dataclass(frozen=True)
class CompletionRequest:
  """A request for completions.

  Attributes:
    prompts: at least one.
    sampling: sampling parameters.
    has_seed: whether the client set the seed.
    bias: token → what is added to its logit.
    num_top_logprobs: number of most likely tokens returned per position; None
      to return no log-probabilities.
    echo: whether completions start with their prompts.
    stream: whether text is sent while it is generated.
    include_usage: whether a stream ends with the numbers of tokens.
  """

  prompts: tuple[str, ...]
  sampling: SamplingParams
  has_seed: bool
  bias: dict[int, float]
  num_top_logprobs: int | None
  echo: bool
  stream: bool
  include_usage: bool


def parse_request(
  body: bytes, model: str, max_tokens: int
) -> CompletionRequest:
  """Parse the body of a request.

  Args:
    body: JSON.
    model: name of the model, which requests may omit.
    max_tokens: maximum number of tokens that a request may ask for.

  Raises:
    ApiError: if the request is invalid.
  """
  fields = _Fields(body)
  name = fields.take("model", str, model)
  if name != model:
    raise ApiError(
      404,
      f"the model {name!r} does not exist; use {model!r}.",
      "model",
      "model_not_found",
    )
  seed = fields.take("seed", int, None, -(2**63), 2**63 - 1)
  parsed = CompletionRequest(
    prompts=fields.take_strings("prompt", ("",)),
    bias=fields.take_bias(),
    sampling=fields.take_sampling(
      num_tokens=fields.take(
        "max_tokens", int, min(16, max_tokens), 1, max_tokens
      ),
      num_samples=fields.take("n", int, 1, 1, _MAX_SAMPLES),
      seed=seed or 0,
      stop=fields.take_stop(),
    ),
    has_seed=seed is not None,
    num_top_logprobs=fields.take("logprobs", int, None, 0, MAX_TOP_LOGPROBS),
    echo=fields.take("echo", bool, False),
    stream=fields.take("stream", bool, False),
    include_usage=fields.take_include_usage(),
  )
  fields.check_best_of(parsed.sampling.num_samples)
  fields.check_none_remaining()
  if not parsed.prompts:
    raise ApiError(400, "prompt must contain at least one text.", "prompt")
  if parsed.echo and parsed.num_top_logprobs is not None:
    raise ApiError(
      400,
      "log-probabilities of prompt tokens are not supported; omit echo or "
      "logprobs.",
      "echo",
    )
  return parsed


class _Fields:
  """The fields of a request that have not been taken yet."""

  def __init__(self, body: bytes):
    try:
      fields = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
      raise ApiError(400, f"the body is not JSON: {error}.") from error
    if not isinstance(fields, dict):
      raise ApiError(400, "the body must be a JSON object.")
    # Clients send null for the fields that they leave out.
    self._remaining = {k: v for k, v in fields.items() if v is not None}
    self._known: set[str] = set()

  def take(
    self,
    name: str,
    kind: type,
    default: Any,
    minimum: int = -(2**31),
    maximum: int = INT32_MAX,
  ) -> Any:
    """Take a value of a type, within limits."""
    value = self._pop(name, None)
    if value is None:
      return default
    value = _typed(name, kind, value)
    if kind is int and not minimum <= value <= maximum:
      raise ApiError(400, f"{name} must be from {minimum} to {maximum}.", name)
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
    # A list has the form of SamplingParams.logit_bias; take_sampling takes it.
    if not isinstance(self._remaining.get("logit_bias"), dict):
      return {}
    bias = {}
    for token, value in self._pop("logit_bias", {}).items():
      number = _typed("logit_bias", float, value)
      # Nine digits always fit int32.
      if not token.isdecimal() or len(token) > 9 or abs(number) > _MAX_BIAS:
        raise ApiError(
          400,
          "logit_bias must map token ids to numbers from "
          f"-{_MAX_BIAS} to {_MAX_BIAS}.",
          "logit_bias",
        )
      bias[int(token)] = number
    return bias

  def take_stop(self) -> tuple[str, ...]:
    """Take the stop strings."""
    stop = self.take_strings("stop", ())
    if len(stop) > _MAX_STOPS or "" in stop:
      raise ApiError(
        400, f"stop must be up to {_MAX_STOPS} non-empty strings.", "stop"
      )
    return stop

  def take_sampling(self, **given: Any) -> SamplingParams:
    """Take sampling parameters.

    Args:
      **given: those that have another name or form in the API.
    """
    kinds = typing.get_type_hints(SamplingParams)
    values = {
      field.name: self.take(field.name, kinds[field.name], field.default)
      for field in dataclasses.fields(SamplingParams)
      if field.name not in given
    }
    try:
      return SamplingParams(**values, **given)
    except UsageError as error:
      raise ApiError(400, str(error)) from error

  def take_include_usage(self) -> bool:
    """Take whether a stream ends with the numbers of tokens."""
    options = self._pop("stream_options", {})
    if not isinstance(options, dict):
      raise ApiError(400, "stream_options must be an object.", "stream_options")
    return options.get("include_usage") is True

  def check_best_of(self, number: int) -> None:
    """Refuse a `best_of` other than `n`, which is not supported."""
    if self.take("best_of", int, number, 1) != number:
      raise ApiError(400, "best_of must equal n or be omitted.", "best_of")

  def check_none_remaining(self) -> None:
    """Refuse unknown fields."""
    # Clients may name their end user; nothing here depends on it.
    self._pop("user", None)
    for name in self._remaining:
      near = difflib.get_close_matches(name, self._known, 1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ApiError(400, f"unknown field {name!r}.{hint}", name)

  def _pop(self, name: str, default: Any) -> Any:
    self._known.add(name)
    return self._remaining.pop(name, default)


def _refuse_constant(name: str) -> None:
  # json.loads accepts NaN and Infinity, which are not JSON.
  raise ValueError(f"{name} is not a JSON number")


def _typed(name: str, kind: Any, value: Any) -> Any:
  """Check that a value has a type, which may be a tuple or optional.

  Raises:
    ApiError: if it has not.
  """
  inner = [x for x in typing.get_args(kind) if x is not types.NoneType]
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, list | tuple):
      raise ApiError(400, f"{name} must be a list.", name)
    return tuple(_typed(name, inner[0], each) for each in value)
  if inner:
    return _typed(name, inner[0], value)
  if not _IS[kind](value):
    raise ApiError(400, f"{name} must be {_EXPECTED[kind]}.", name)
  return float(value) if kind is float else value


def _is_integer(value: Any) -> bool:
  # bool is a subclass of int, so JSON's true would pass as 1.
  return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  number = _is_integer(value) or isinstance(value, float)
  return number and (value == 0 or SMALLEST <= abs(value) <= LARGEST)


def _is_text(value: Any) -> bool:
  """Return whether a value is a string without lone surrogates."""
  if not isinstance(value, str):
    return False
  # JSON can escape a lone surrogate, which tokenizers cannot encode as UTF-8.
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
