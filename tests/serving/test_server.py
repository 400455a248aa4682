# SPDX-License-Identifier: Apache-2.0
"""The HTTP server on a real socket, with the OpenAI client."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import openai
import pytest

from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.sampling_params import SamplingParams
from lmjax.serving.app import Limits, Service
from lmjax.serving.server import serve

EOS = Tokenizer.eos_id

ROOT = Path(__file__).parent.parent.parent
KEY = "secret"
# More tokens than a test waits for, so a request stays in progress.
MAX_TOKENS = 10**8
NO_END = {"logit_bias": {str(EOS): -100}}
ENDLESS = {"max_tokens": MAX_TOKENS, **NO_END}
FIVE = {"max_tokens": 5, **NO_END}
MANY = b'{"prompt": ["a", "b", "c"], "n": 128}'
COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = b'{"prompt": "%s"}' % (b"a" * 5000)


def client_of(address, key=KEY):
  url = f"{address}/v1"
  return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(address):
  return client_of(address)


def complete(client, prompt="1 squared", **fields):
  return client.completions.create(model="small", prompt=prompt, **fields)


def get(url, data=None, **headers):
  """Return the status, the headers and the body of a response."""
  request = urllib.request.Request(url, data, headers)
  try:
    with urllib.request.urlopen(request, timeout=60) as response:
      return response.status, response.headers, response.read().decode()
  except urllib.error.HTTPError as error:
    return error.code, error.headers, error.read().decode()


def load(address):
  """Return the numbers of running and waiting texts."""
  health = json.loads(get(f"{address}/health")[2])
  return health["running"], health["waiting"]


def wait_until(address, **expected):
  """Wait until a server has these numbers of running and waiting texts."""
  expected = expected["running"], expected["waiting"]
  for _ in range(2000):
    if load(address) == expected:
      return
    time.sleep(0.01)
  raise AssertionError(f"{load(address)} is not {expected}")


def test_completions_equal_those_of_run_generate(run, client):
  response = complete(client, "1 squ", n=2, seed=5, max_tokens=16)
  expected = run.generate(
    "1 squ", SamplingParams(num_samples=2, num_tokens=16, seed=5)
  ).texts
  assert [choice.text for choice in response.choices] == expected
  assert [choice.index for choice in response.choices] == [0, 1]
  assert response.usage.prompt_tokens == len("1 squ")
  assert response.model == "small" and response.object == "text_completion"
  assert [model.id for model in client.models.list()] == ["small"]
  assert client.models.retrieve("small").owned_by == "lmjax"


def test_only_requests_with_a_seed_are_reproducible(client):
  """For equal prompts within a request, and for equal requests."""
  fields = dict(prompt=["1 squ", "1 squ"], n=2, max_tokens=24, **NO_END)
  texts = [
    choice.text
    for seed in (None, None, 7, 7)
    for choice in complete(client, seed=seed, **fields).choices
  ]
  assert len({*texts[:8]}) == 8
  assert texts[8:12] == texts[12:] and texts[8:10] == texts[10:12]


def test_logit_bias_forces_a_token(run, client):
  (token,) = run.tokenizer.encode("q")
  response = complete(client, logit_bias={str(token): 100}, max_tokens=4)
  assert response.choices[0].text == "qqqq"
  with pytest.raises(openai.BadRequestError, match="token ids below"):
    complete(client, logit_bias={"99999": 1})


@pytest.mark.parametrize("echo", [True, False])
def test_streamed_chunks_concatenate_to_the_completion(client, echo):
  prompts = ["1 squared", "2 s"]
  fields = dict(seed=3, max_tokens=16, echo=echo, stop=["qu", "a"])
  fields |= {} if echo else dict(logprobs=2)
  whole = complete(client, prompts, **fields)
  usage = {"include_usage": True}
  parts = [
    *complete(client, prompts, stream=True, stream_options=usage, **fields)
  ]
  assert parts.pop().usage == whole.usage
  for prompt, choice in zip(prompts, whole.choices, strict=True):
    own = [x.choices[0] for x in parts if x.choices[0].index == choice.index]
    assert "".join(part.text for part in own) == choice.text
    assert choice.text.startswith(prompt) == echo
    new = choice.text[echo * len(prompt) :]
    assert "qu" not in new and "a" not in new
    assert own[-1].finish_reason == choice.finish_reason
    if not echo:
      logprobs = choice.logprobs
      tokens = [token for part in own for token in part.logprobs.tokens]
      assert tokens == logprobs.tokens and "".join(tokens) == choice.text
      for token, log_prob, top in zip(
        logprobs.tokens,
        logprobs.token_logprobs,
        logprobs.top_logprobs,
        strict=True,
      ):
        assert top[token] == log_prob and 2 <= len(top) <= 3


def test_batched_completions_equal_single_ones_for_64_clients(start):
  """All requests arrive during another one, so they form one batch."""
  address, service = start(Limits(queue=64, tokens=MAX_TOKENS))
  batches = []
  generate = service._batcher._generate_batch
  service._batcher._generate_batch = lambda rows: (
    batches.append(len(rows)) or generate(rows)
  )
  requests = [
    dict(
      prompt="the square of 12"[: 1 + number % 16],
      temperature=(0.3, 0.5, 1.0)[number % 3],
      top_p=(0.5, 0.9)[number % 2],
      stop=("q", "sq")[number % 2],
      max_tokens=2 + number % 14,
      seed=number,
    )
    for number in range(64)
  ]
  client = client_of(address)
  running = complete(client, stream=True, **ENDLESS)
  with ThreadPoolExecutor(64) as threads:
    waiting = [
      threads.submit(complete, client, **fields) for fields in requests
    ]
    wait_until(address, running=1, waiting=64)
    running.close()
    together = [response.result().choices[0] for response in waiting]
  assert batches == [1, 64]
  for parsed, choice in zip(requests, together, strict=True):
    (alone,) = complete(client, **parsed).choices
    assert choice.text == alone.text
    assert choice.finish_reason == alone.finish_reason
  assert batches == [1, 64] + [1] * 64


def test_full_queue_returns_429_until_a_client_disconnects(start):
  address, _ = start(Limits(batch=1, queue=1, tokens=MAX_TOKENS))
  client = client_of(address)
  running = complete(client, stream=True, **ENDLESS)
  next(running)
  with ThreadPoolExecutor(1) as threads:
    waiting = threads.submit(complete, client, **FIVE)
    wait_until(address, running=1, waiting=1)
    body = json.dumps({"prompt": "1"}).encode()
    status, headers, text = get(f"{address}/v1/completions", body)
    assert status == 429 and headers["retry-after"] == "1"
    assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"
    with pytest.raises(openai.RateLimitError):
      complete(client)
    running.close()
    assert waiting.result().usage.completion_tokens == 5
  wait_until(address, running=0, waiting=0)
  _request_and_disconnect(address, ENDLESS)
  assert complete(client, **FIVE).usage.completion_tokens == 5


def _request_and_disconnect(address, fields):
  """Send a request, and disconnect before its response."""
  body = json.dumps(fields).encode()
  host, port = address.removeprefix("http://").split(":")
  with socket.create_connection((host, int(port))) as connection:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    connection.sendall(body)
    wait_until(address, running=1, waiting=0)
  wait_until(address, running=0, waiting=0)


@pytest.mark.parametrize(
  "path, body, status, words",
  [
    ("/v1/completions", b"{", 400, "not JSON"),
    ("/v1/completions", b'{"n": 1000}', 400, "n must be from"),
    ("/v1/completions", MANY, 400, "384 texts"),
    (
      "/v1/completions",
      b'{"control_code": "poem"}',
      400,
      "'poem' is no control code",
    ),
    ("/v1/completions", LONG, 400, "5000 tokens"),
    ("/v1/completions", b"a" * (1 << 21), 413, "bytes"),
    ("/v1/completions", b'{"model": "gpt"}', 404, "use 'small'"),
    ("/v1/completions", None, 405, "POST /v1/completions"),
    ("/v1/chat/completions", b"{}", 404, "POST /v1/completions"),
    ("/v1/models/gpt", None, 404, "'gpt'"),
  ],
)
def test_invalid_requests_return_an_error_and_leave_no_load(
  address, path, body, status, words
):
  try:
    found, _, text = get(address + path, body)
  except ConnectionError:  # the response came before all of the body was sent
    assert status == 413
  else:
    assert found == status
    assert words in json.loads(text)["error"]["message"]
  assert load(address) == (0, 0)


def test_requires_the_api_key(start):
  address, _ = start(key=KEY)
  assert complete(client_of(address), max_tokens=2).choices
  for wrong in ("other", "é", KEY + "x"):
    with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
      complete(client_of(address, wrong))
  assert get(f"{address}/v1/models")[0] == 401
  assert get(f"{address}/health")[0] == get(f"{address}/")[0] == 200


def test_closing_server_returns_503(start):
  address, service = start()
  service.close()
  with pytest.raises(
    openai.InternalServerError, match="shutting down"
  ) as caught:
    complete(client_of(address))
  assert caught.value.status_code == 503


def test_logs_failures_outside_of_a_batch(start, caplog):
  address, service = start()

  def send_error(rows):
    raise ValueError("a broken queue")

  service._batcher.add = send_error
  status, _, text = get(f"{address}/v1/completions", b"{}")
  assert status == 500 and "see its log" in text
  assert "a broken queue" in caplog.text


def test_page_loads_no_other_resources(address):
  status, headers, page = get(f"{address}/")
  assert status == 200 and headers["content-type"].startswith("text/html")
  assert "default-src 'none'" in headers["content-security-policy"]
  assert not re.search(r"https?:|@import|url\(|src=", page)


def test_warm_server_does_not_compile(start):
  address, service = start(Limits(batch=3))
  service.warm_up(33)
  names = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: names.append(name)
  )
  client = client_of(address)
  for number in (1, 2, 3):
    complete(client, n=number, temperature=0.7, max_tokens=33)
  assert COMPILED not in names
  complete(client, max_tokens=100)
  assert COMPILED in names


def test_warms_up_with_the_smallest_prompt_limit(start):
  address, service = start(Limits(batch=1, prompt=1))
  service.warm_up(16)
  assert complete(client_of(address), "1", max_tokens=2).model == "small"


def test_rejects_invalid_limits_keys_and_addresses(run):
  with pytest.raises(UsageError, match="max_batch=0"):
    Service(run.sampler, run.variables, "small", Limits(batch=0))
  with pytest.raises(UsageError, match="api_key must be ASCII"):
    Service(run.sampler, run.variables, "small", Limits(), "caf\u00e9")
  service = Service(run.sampler, run.variables, "small", Limits())
  with (
    socket.create_server(("127.0.0.1", 0)) as listener,
    pytest.raises(UsageError, match="choose another --host or --port"),
  ):
    serve(service, "127.0.0.1", listener.getsockname()[1], pytest.fail)


def test_script_serves_a_run_until_sigterm(run):
  folder = run.experiment.folder.path
  process = subprocess.Popen(
    [
      sys.executable,
      ROOT / "scripts/serve.py",
      f"--workdir={folder}",
      "--port=0",
      "--max_batch=2",
    ],
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert "up to 2 texts of 64 tokens" in process.stdout.readline()
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
    assert complete(client_of(address), max_tokens=2).model == "small"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM
  finally:
    process.kill()
