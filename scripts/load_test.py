# SPDX-License-Identifier: Apache-2.0
"""Measure the throughput of a server with concurrent clients.

python scripts/serve.py --workdir=runs/a &
python scripts/load_test.py --clients=64 --num_tokens=64

Each client sends a request with its own seed. The script alternates between
sequential and concurrent requests, and prints the tokens per second of both and
the number of responses that are missing or differ.
"""

import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

from absl import flags

from lmjax.cli import app
from lmjax.errors import UsageError, UserError

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "URL of the server.")
_CLIENTS = flags.DEFINE_integer(
  "clients", 64, "Number of concurrent clients.", lower_bound=1
)
_NUM_TOKENS = flags.DEFINE_integer(
  "num_tokens", 64, "Number of tokens that each client requests.", lower_bound=1
)
_PROMPT = flags.DEFINE_string("prompt", "The ", "Prompt of the requests.")
_API_KEY = flags.DEFINE_string(
  "api_key", "", "API key of the server; empty for none."
)
_REPEATS = flags.DEFINE_integer(
  "repeats",
  3,
  "Number of measured rounds, after one that compiles.",
  lower_bound=1,
)

MapFunction = Callable[..., Iterable]  # sequential or concurrent


class Round(NamedTuple):
  """The responses to all clients.

  Attributes:
    texts: None where the response is missing.
    tokens: number of tokens of all responses.
    seconds: time until the last response.
  """

  texts: list[str | None]
  tokens: int
  seconds: float


def is_address(url: str) -> bool:
  """Return whether a URL is http with a host and, optionally, a port."""
  try:
    address = urlsplit(url)
    has_host = bool(address.hostname) and address.port != 0
    return has_host and address.scheme == "http"
  except ValueError:
    return False


def complete(seed: int) -> tuple[str | None, int]:
  """Return the text of a completion and its number of tokens."""
  address = urlsplit(_URL.value)
  body = dict(prompt=_PROMPT.value, max_tokens=_NUM_TOKENS.value, seed=seed)
  headers = {"Authorization": f"Bearer {_API_KEY.value}"}
  connection = http.client.HTTPConnection(address.netloc, timeout=600)
  try:
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    completion = json.loads(response.read())
  except (OSError, http.client.HTTPException, ValueError):
    return None, 0
  finally:
    connection.close()
  if response.status != 200:
    return None, 0
  num_tokens = completion["usage"]["completion_tokens"]
  return completion["choices"][0]["text"], num_tokens


def run_round(map_function: MapFunction) -> Round:
  """Send the request of every client."""
  start = time.perf_counter()
  responses = list(map_function(complete, range(_CLIENTS.value)))
  seconds = time.perf_counter() - start
  texts, numbers = zip(*responses, strict=True)
  return Round(list(texts), sum(numbers), seconds)


def main() -> int:
  """Print the measurements; return 1 if a response is missing or differs."""
  if not is_address(_URL.value):
    raise UsageError(f"--url={_URL.value} must be like {_URL.default}.")
  if complete(0)[0] is None:
    raise UserError(
      f"{_URL.value} did not answer; start scripts/serve.py, and give its "
      "--api_key if it has one."
    )
  with ThreadPoolExecutor(_CLIENTS.value) as threads:
    run_round(threads.map)
    sequential, concurrent = zip(
      *[
        (run_round(map), run_round(threads.map)) for _ in range(_REPEATS.value)
      ],
      strict=True,
    )
  expected = sequential[0].texts
  texts = [text for each in (*sequential, *concurrent) for text in each.texts]
  missing = sum(text is None for text in texts)
  differ = sum(
    text not in (None, expected[number % len(expected)])
    for number, text in enumerate(texts)
  )
  slow, fast = (
    statistics.median(each.tokens / each.seconds for each in rounds)
    for rounds in (sequential, concurrent)
  )
  print(
    f"{len(texts)} responses: {missing} missing, {differ} differ; sequential "
    f"{slow:,.0f} tokens/s, {_CLIENTS.value} concurrent clients {fast:,.0f} "
    f"tokens/s: {fast / slow:.1f} times the throughput"
  )
  return int(missing + differ > 0)


if __name__ == "__main__":
  app.run(main)
