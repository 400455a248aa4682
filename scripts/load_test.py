# SPDX-License-Identifier: Apache-2.0
"""Ask a server as many clients at once, and as one after the other.

python scripts/serve.py --workdir=runs/a &
python scripts/load_test.py --clients=64 --num_tokens=64

Every client asks with a seed of its own. Printed are tokens per second of both
ways, taken in turns, and how many answers were lost or differ.
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

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "The server.")
_CLIENTS = flags.DEFINE_integer("clients", 64, "How many.", lower_bound=1)
_NUM_TOKENS = flags.DEFINE_integer(
  "num_tokens", 64, "Tokens a client asks for.", lower_bound=1
)
_PROMPT = flags.DEFINE_string("prompt", "The ", "Prompt of the requests.")
_API_KEY = flags.DEFINE_string("api_key", "", "What the server wants to know.")
_REPEATS = flags.DEFINE_integer(
  "repeats", 3, "Measurements, after one that compiles.", lower_bound=1
)

Ways = Callable[..., Iterable]  # map: one after the other, or all at once


class Round(NamedTuple):
  """What all clients got.

  Attributes:
    texts: None where no answer came.
    tokens: how many came in all.
    seconds: until the last one had come.
  """

  texts: list[str | None]
  tokens: int
  seconds: float


def is_address(url: str) -> bool:
  """Say whether it names a host, and perhaps a port of it, by http."""
  try:
    address = urlsplit(url)
    named = bool(address.hostname) and address.port != 0
    return named and address.scheme == "http"
  except ValueError:
    return False


def ask(seed: int) -> tuple[str | None, int]:
  """Return the text that a client gets, and how many tokens it has."""
  address = urlsplit(_URL.value)
  question = dict(prompt=_PROMPT.value, max_tokens=_NUM_TOKENS.value, seed=seed)
  headers = {"Authorization": f"Bearer {_API_KEY.value}"}
  connection = http.client.HTTPConnection(address.netloc, timeout=600)
  try:
    connection.request("POST", "/v1/completions", json.dumps(question), headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
  except (OSError, http.client.HTTPException, ValueError):
    return None, 0
  finally:
    connection.close()
  if answer.status != 200:
    return None, 0
  return body["choices"][0]["text"], body["usage"]["completion_tokens"]


def go_round(way: Ways) -> Round:
  """Let every client ask."""
  began = time.perf_counter()
  answers = list(way(ask, range(_CLIENTS.value)))
  seconds = time.perf_counter() - began
  texts, numbers = zip(*answers, strict=True)
  return Round(list(texts), sum(numbers), seconds)


def main() -> int:
  """Print the measurements; return 1 if a response is missing or differs."""
  if not is_address(_URL.value):
    raise UsageError(f"--url={_URL.value} must be like {_URL.default}.")
  if ask(0)[0] is None:
    raise UserError(
      f"{_URL.value} did not answer; start scripts/serve.py, and give its "
      "--api_key if it has one."
    )
  with ThreadPoolExecutor(_CLIENTS.value) as threads:
    go_round(threads.map)
    alone, together = zip(
      *[(go_round(map), go_round(threads.map)) for _ in range(_REPEATS.value)],
      strict=True,
    )
  wanted = alone[0].texts
  texts = [text for each in (*alone, *together) for text in each.texts]
  lost = sum(text is None for text in texts)
  differ = sum(
    text not in (None, wanted[number % len(wanted)])
    for number, text in enumerate(texts)
  )
  slow, fast = (
    statistics.median(each.tokens / each.seconds for each in rounds)
    for rounds in (alone, together)
  )
  print(
    f"{len(texts)} answers: {lost} lost, {differ} differ; one client after "
    f"the other {slow:,.0f} tokens/s, {_CLIENTS.value} at once {fast:,.0f} "
    f"tokens/s: {fast / slow:.1f} times as many"
  )
  return int(lost + differ > 0)


if __name__ == "__main__":
  app.run(main)
