# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from lmjax.generation.sampling_params import SamplingParams
from lmjax.serving.api_error import ApiError
from lmjax.serving.question import read_question


def read(**fields):
  return read_question(json.dumps(fields).encode(), "m", most_tokens=99)


def test_fields_become_a_question():
  question = read(
    model="m", prompt=["a", "b"], n=2, max_tokens=9, stop="x", seed=-1,
    logprobs=0, stream=True, stream_options={"include_usage": True}, user="me",
    temperature=0, echo=None, logit_bias={"3": -100},
  )  # fmt: skip
  assert question.prompts == ("a", "b") and question.sampling.stop == ("x",)
  assert (question.sampling.num_samples, question.sampling.num_tokens) == (2, 9)
  assert (question.sampling.seed, question.num_top_logprobs) == (-1, 0)
  assert question.bias == {3: -100.0}
  assert question.streams and question.counts and not question.echo
  assert question.sampling == SamplingParams(
    num_tokens=9, num_samples=2, seed=-1, stop=("x",), temperature=0.0
  )


def test_nothing_said_is_what_openai_takes_it_for():
  question = read()
  assert question.prompts == ("",) and question.sampling.num_tokens == 16
  assert question.sampling == SamplingParams(num_tokens=16)
  assert question.num_top_logprobs is None
  assert not question.has_seed


def test_every_setting_of_sampling_is_a_field():
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
    ('{"temperature": 1e999}', 400, "temperature must be a number"),
    ('{"temperature": 1e-42}', 400, "temperature must be a number"),
    ('{"temperature": true}', 400, "temperature must be a number"),
    ('{"temperature": -1}', 400, "temperature=-1"),
    ('{"temprature": 1}', 400, "Did you mean 'temperature'"),
    ('{"top_k": 1.5}', 400, "top_k must be an integer"),
    ('{"top_k": 9999999999}', 400, "top_k must be between"),
    ('{"max_tokens": 0}', 400, "max_tokens must be between 1 and 99"),
    ('{"max_tokens": 100}', 400, "max_tokens must be between 1 and 99"),
    ('{"n": 0}', 400, "n must be between 1 and 128"),
    ('{"n": 2, "best_of": 3}', 400, "best_of"),
    ('{"prompt": 3}', 400, "prompt must be a list"),
    ('{"prompt": []}', 400, "prompt must hold a text"),
    ('{"prompt": ["a", 3]}', 400, "prompt must be a string"),
    (r'{"prompt": "\ud800"}', 400, "whole characters"),
    ('{"stop": [""]}', 400, "stop must be"),
    ('{"stop": ["a", "b", "c", "d", "e"]}', 400, "stop must be"),
    ('{"logprobs": 6}', 400, "logprobs must be between 0 and 5"),
    ('{"logprobs": 1, "echo": true}', 400, "leave echo or logprobs"),
    ('{"logit_bias": {"a": 1}}', 400, "by the numbers of tokens"),
    ('{"logit_bias": {"1": 101}}', 400, "from -100 to 100"),
    ('{"logit_bias": {"1": "x"}}', 400, "logit_bias must be a number"),
    ('{"stream": 1}', 400, "stream must be true or false"),
    ('{"stream_options": 1}', 400, "stream_options"),
    ('{"suffix": "x"}', 400, "there is no field 'suffix'"),
    ('{"model": "gpt"}', 404, "ask for 'm'"),
  ],
)
def test_a_question_that_cannot_be_answered_says_why(body, status, words):
  body = body if isinstance(body, bytes) else body.encode()
  with pytest.raises(ApiError, match=words) as caught:
    read_question(body, "m", most_tokens=99)
  assert caught.value.status == status
