# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from lmjax.generation.sampling_params import SamplingParams
from lmjax.serving.api_error import ApiError
from lmjax.serving.completion_request import parse_request


def read(**fields):
  return parse_request(json.dumps(fields).encode(), "m", max_tokens=99)


def test_parses_all_fields():
  parsed = read(
    model="m", prompt=["a", "b"], n=2, max_tokens=9, stop="x", seed=-1,
    logprobs=0, stream=True, stream_options={"include_usage": True}, user="me",
    temperature=0, echo=None, logit_bias={"3": -100},
  )  # fmt: skip
  assert parsed.prompts == (
    "a",
    "b",
  ) and parsed.sampling.stop == ("x",)
  assert (
    parsed.sampling.num_samples,
    parsed.sampling.num_tokens,
  ) == (2, 9)
  assert (
    parsed.sampling.seed,
    parsed.num_top_logprobs,
  ) == (-1, 0)
  assert parsed.bias == {3: -100.0}
  assert parsed.stream and parsed.include_usage and not parsed.echo
  assert parsed.sampling == SamplingParams(
    num_tokens=9, num_samples=2, seed=-1, stop=("x",), temperature=0.0
  )


def test_defaults_equal_those_of_the_openai_api():
  parsed = read()
  assert parsed.prompts == ("",) and parsed.sampling.num_tokens == 16
  assert parsed.sampling == SamplingParams(num_tokens=16)
  assert parsed.num_top_logprobs is None
  assert not parsed.has_seed


def test_accepts_every_sampling_parameter():
  renamed = ("num_tokens", "num_samples")  # "max_tokens" and "n" in the API
  for field in dataclasses.fields(SamplingParams):
    if field.type in (int, float) and field.name not in renamed:
      value = {int: 1, float: 0.5}[field.type]
      sampling = read(**{field.name: value}).sampling
      assert getattr(sampling, field.name) == value
      assert type(getattr(sampling, field.name)) is field.type


@pytest.mark.parametrize(
  "body, status, words",
  [
    ("{", 400, "not JSON"),
    ("", 400, "not JSON"),
    ("[]", 400, "JSON object"),
    ("[" * 100_000, 400, "not JSON"),
    (b"\xff", 400, "not JSON"),
    ('{"top_p": NaN}', 400, "NaN"),
    ('{"temperature": 1e999}', 400, "temperature must be 0 or a number"),
    ('{"temperature": 1e-42}', 400, "temperature must be 0 or a number"),
    ('{"temperature": true}', 400, "temperature must be 0 or a number"),
    ('{"temperature": -1}', 400, "temperature=-1"),
    ('{"temprature": 1}', 400, "Did you mean 'temperature'"),
    ('{"top_k": 1.5}', 400, "top_k must be an integer"),
    ('{"top_k": 9999999999}', 400, "top_k must be from"),
    ('{"max_tokens": 0}', 400, "max_tokens must be from 1 to 99"),
    ('{"max_tokens": 100}', 400, "max_tokens must be from 1 to 99"),
    ('{"n": 0}', 400, "n must be from 1 to 128"),
    ('{"n": 2, "best_of": 3}', 400, "best_of"),
    ('{"prompt": 3}', 400, "prompt must be a list"),
    ('{"prompt": []}', 400, "prompt must contain at least one text"),
    ('{"prompt": ["a", 3]}', 400, "prompt must be a string"),
    (r'{"prompt": "\ud800"}', 400, "valid Unicode"),
    ('{"stop": [""]}', 400, "stop must be"),
    ('{"stop": ["a", "b", "c", "d", "e"]}', 400, "stop must be"),
    ('{"logprobs": 6}', 400, "logprobs must be from 0 to 5"),
    ('{"logprobs": 1, "echo": true}', 400, "omit echo or logprobs"),
    ('{"logit_bias": {"a": 1}}', 400, "must map token ids"),
    ('{"logit_bias": {"1": 101}}', 400, "from -100 to 100"),
    ('{"logit_bias": {"1": "x"}}', 400, "logit_bias must be 0 or a number"),
    ('{"stream": 1}', 400, "stream must be true or false"),
    ('{"stream_options": 1}', 400, "stream_options"),
    ('{"suffix": "x"}', 400, "unknown field 'suffix'"),
    ('{"model": "gpt"}', 404, "use 'm'"),
  ],
)
def test_rejects_invalid_requests_in_one_sentence(body, status, words):
  body = body if isinstance(body, bytes) else body.encode()
  with pytest.raises(ApiError, match=words) as caught:
    parse_request(body, "m", max_tokens=99)
  assert caught.value.status == status
