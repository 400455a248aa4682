# SPDX-License-Identifier: Apache-2.0
"""A small model behind a real socket, asked as users ask."""

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
MOST = 10**8  # tokens, which nobody will wait for
NO_END = {"logit_bias": {str(EOS): -100}}
ENDLESS = {"max_tokens": MOST, **NO_END}
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


def ask(client, prompt="1 squared", **fields):
  return client.completions.create(model="small", prompt=prompt, **fields)


def get(url, data=None, **headers):
  """Return the status, the headers and the body of an response."""
  request = urllib.request.Request(url, data, headers)
  try:
    with urllib.request.urlopen(request, timeout=60) as response:
      return response.status, response.headers, response.read().decode()
  except urllib.error.HTTPError as error:
    return error.code, error.headers, error.read().decode()


def busy(address):
  """Return how many texts are running and waiting."""
  health = json.loads(get(f"{address}/health")[2])
  return health["running"], health["waiting"]


def wait_until(address, **wanted):
  """Wait until a server has so many texts running and waiting."""
  wanted = wanted["running"], wanted["waiting"]
  for _ in range(2000):
    if busy(address) == wanted:
      return
    time.sleep(0.01)
  raise AssertionError(f"{busy(address)} is not {wanted}")


def test_texts_are_those_of_the_run(run, client):
  response = ask(client, "1 squ", n=2, seed=5, max_tokens=16)
  wanted = run.generate(
    "1 squ", SamplingParams(num_samples=2, num_tokens=16, seed=5)
  ).texts
  assert [choice.text for choice in response.choices] == wanted
  assert [choice.index for choice in response.choices] == [0, 1]
  assert response.usage.prompt_tokens == len("1 squ")
  assert response.model == "small" and response.object == "text_completion"
  assert [model.id for model in client.models.list()] == ["small"]
  assert client.models.retrieve("small").owned_by == "lmjax"


def test_only_a_seed_makes_texts_alike(client):
  """Of prompts that are alike, and of requests."""
  fields = dict(prompt=["1 squ", "1 squ"], n=2, max_tokens=24, **NO_END)
  texts = [
    choice.text
    for seed in (None, None, 7, 7)
    for choice in ask(client, seed=seed, **fields).choices
  ]
  assert len({*texts[:8]}) == 8
  assert texts[8:12] == texts[12:] and texts[8:10] == texts[10:12]


def test_a_bias_decides_what_is_written(run, client):
  (token,) = run.tokenizer.encode("q")
  response = ask(client, logit_bias={str(token): 100}, max_tokens=4)
  assert response.choices[0].text == "qqqq"
  with pytest.raises(openai.BadRequestError, match="token ids below"):
    ask(client, logit_bias={"99999": 1})


@pytest.mark.parametrize("echo", [True, False])
def test_a_stream_adds_up_to_the_whole_answer(client, echo):
  prompts = ["1 squared", "2 s"]
  fields = dict(seed=3, max_tokens=16, echo=echo, stop=["qu", "a"])
  fields |= {} if echo else dict(logprobs=2)
  whole = ask(client, prompts, **fields)
  usage = {"include_usage": True}
  parts = [*ask(client, prompts, stream=True, stream_options=usage, **fields)]
  assert parts.pop().usage == whole.usage
  for prompt, choice in zip(prompts, whole.choices, strict=True):
    own = [x.choices[0] for x in parts if x.choices[0].index == choice.index]
    assert "".join(part.text for part in own) == choice.text
    assert choice.text.startswith(prompt) == echo
    new = choice.text[echo * len(prompt) :]
    assert "qu" not in new and "a" not in new
    assert own[-1].finish_reason == choice.finish_reason
    if not echo:
      told = choice.logprobs
      tokens = [token for part in own for token in part.logprobs.tokens]
      assert tokens == told.tokens and "".join(tokens) == choice.text
      for token, log_prob, best in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, strict=True
      ):
        assert best[token] == log_prob and 2 <= len(best) <= 3


def test_64_clients_at_once_get_what_each_gets_alone(start):
  """While one text is written they all come, and are drawn in one batch."""
  address, service = start(Limits(queue=64, tokens=MOST))
  batches = []
  draw = service._batcher._generate_batch
  service._batcher._generate_batch = lambda rows: (
    batches.append(len(rows)) or draw(rows)
  )
  questions = [
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
  running = ask(client, stream=True, **ENDLESS)
  with ThreadPoolExecutor(64) as threads:
    waiting = [threads.submit(ask, client, **fields) for fields in questions]
    wait_until(address, running=1, waiting=64)
    running.close()
    together = [response.result().choices[0] for response in waiting]
  assert batches == [1, 64]
  for parsed, choice in zip(questions, together, strict=True):
    (alone,) = ask(client, **parsed).choices
    assert choice.text == alone.text
    assert choice.finish_reason == alone.finish_reason
  assert batches == [1, 64] + [1] * 64


def test_a_full_queue_refuses_and_clients_that_go_away_make_room(start):
  address, _ = start(Limits(batch=1, queue=1, tokens=MOST))
  client = client_of(address)
  running = ask(client, stream=True, **ENDLESS)
  next(running)
  with ThreadPoolExecutor(1) as threads:
    waiting = threads.submit(ask, client, **FIVE)
    wait_until(address, running=1, waiting=1)
    body = json.dumps({"prompt": "1"}).encode()
    status, headers, text = get(f"{address}/v1/completions", body)
    assert status == 429 and headers["retry-after"] == "1"
    assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"
    with pytest.raises(openai.RateLimitError):
      ask(client)
    running.close()
    assert waiting.result().usage.completion_tokens == 5
  wait_until(address, running=0, waiting=0)
  _ask_and_go(address, ENDLESS)
  assert ask(client, **FIVE).usage.completion_tokens == 5


def _ask_and_go(address, fields):
  """Ask for a whole response, and close the connection before it is there."""
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
def test_refusals_are_sentences_and_the_server_lives_on(
  address, path, body, status, words
):
  try:
    found, _, text = get(address + path, body)
  except ConnectionError:  # the response came before all of the body was sent
    assert status == 413
  else:
    assert found == status
    assert words in json.loads(text)["error"]["message"]
  assert busy(address) == (0, 0)


def test_a_key_is_asked_for(start):
  address, _ = start(key=KEY)
  assert ask(client_of(address), max_tokens=2).choices
  for wrong in ("other", "é", KEY + "x"):
    with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
      ask(client_of(address, wrong))
  assert get(f"{address}/v1/models")[0] == 401
  assert get(f"{address}/health")[0] == get(f"{address}/")[0] == 200


def test_a_server_that_closes_says_so(start):
  address, service = start()
  service.close()
  with pytest.raises(
    openai.InternalServerError, match="shutting down"
  ) as caught:
    ask(client_of(address))
  assert caught.value.status_code == 503


def test_a_failure_outside_of_a_batch_is_in_the_log(start, caplog):
  address, service = start()

  def send_error(rows):
    raise ValueError("a broken queue")

  service._batcher.add = send_error
  status, _, text = get(f"{address}/v1/completions", b"{}")
  assert status == 500 and "see its log" in text
  assert "a broken queue" in caplog.text


def test_the_page_needs_nothing_else(address):
  status, headers, page = get(f"{address}/")
  assert status == 200 and headers["content-type"].startswith("text/html")
  assert "default-src 'none'" in headers["content-security-policy"]
  assert not re.search(r"https?:|@import|url\(|src=", page)


def test_a_warm_server_compiles_nothing(start):
  address, service = start(Limits(batch=3))
  service.warm_up(33)
  names = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: names.append(name)
  )
  client = client_of(address)
  for number in (1, 2, 3):
    ask(client, n=number, temperature=0.7, max_tokens=33)
  assert COMPILED not in names
  ask(client, max_tokens=100)
  assert COMPILED in names


def test_a_server_of_the_shortest_prompts_warms_up(start):
  address, service = start(Limits(batch=1, prompt=1))
  service.warm_up(16)
  assert ask(client_of(address), "1", max_tokens=2).model == "small"


def test_what_cannot_be_served_is_a_sentence(run):
  with pytest.raises(UsageError, match="max_batch=0"):
    Service(run.sampler, run.variables, "small", Limits(batch=0))
  with pytest.raises(UsageError, match="api_key must be ASCII"):
    Service(run.sampler, run.variables, "small", Limits(), "caf\u00e9")
  service = Service(run.sampler, run.variables, "small", Limits())
  with (
    socket.create_server(("127.0.0.1", 0)) as taken,
    pytest.raises(UsageError, match="choose another --host or --port"),
  ):
    serve(service, "127.0.0.1", taken.getsockname()[1], pytest.fail)


def test_the_script_serves_a_folder_until_a_signal(run):
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
    assert ask(client_of(address), max_tokens=2).model == "small"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM
  finally:
    process.kill()
