# SPDX-License-Identifier: Apache-2.0
"""A model's HTTP server, in the shape of OpenAI's completions.

GET / is a page for trying the model, GET /health says how busy it is, GET
/v1/models names it, and POST /v1/completions goes on from texts; see
lmjax.serving.question for what may be asked.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lmjax import strict_json
from lmjax.decoding.filters import Filter
from lmjax.decoding.filters.bias import LogitBias
from lmjax.decoding.filters.stacking import stack
from lmjax.errors import UsageError, check_positive
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.requests import bucket_rows
from lmjax.generation.text_sampler import TextSampler
from lmjax.serving.answer import Answer
from lmjax.serving.api_error import ApiError
from lmjax.serving.batcher import (
  Batcher,
  Draw,
  QueueFull,
  Row,
  ServerClosing,
  news_of,
)
from lmjax.serving.question import MAX_TOP_LOGPROBS, Question, read_question
from lmjax.types import PyTree

_CHUNK = 16  # tokens drawn before they are sent
_MOST_BYTES = 1 << 20  # of a request's body
_PAGE = resources.files(__package__).joinpath("page.html").read_text("utf-8")
_PAGE_HEADERS = {
  "Content-Security-Policy": "default-src 'none'; connect-src 'self'; "
  "img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
}


class Limits(NamedTuple):
  """How much may be asked for.

  Attributes:
    batch: texts that are drawn at once.
    queue: texts that may wait.
    tokens: of a continuation.
    prompt: tokens of a prompt.
  """

  batch: int = 64
  queue: int = 256
  tokens: int = 1024
  prompt: int = 4096


class Service:
  """What the server's paths do.

  Args:
    sampler: goes on from a text.
    variables: the model's variables.
    model: its name.
    limits: how much may be asked for.
    key: what clients must know; empty for nothing.

  Raises:
    UsageError: if a limit is below 1, or the key has characters that clients
      write differently.
  """

  def __init__(
    self,
    sampler: TextSampler,
    variables: PyTree,
    model: str,
    limits: Limits,
    key: str = "",
  ):
    for name, limit in limits._asdict().items():
      check_positive(**{f"max_{name}": limit})
    if not key.isascii():
      raise UsageError("api_key must be of ASCII, as the headers of HTTP are.")
    self._sampler, self._model = sampler, model
    self._limits, self._key = limits, key
    self._names = sampler.tokenizer.names()
    self._draw = _drawing(sampler, variables)
    self._batcher = Batcher(self._draw, limits.batch, limits.queue)

  def warm_up(self, num_tokens: int) -> None:
    """Compile what draws so many tokens, for batches of all sizes.

    That is for requests with short prompts that ask for no log-probabilities
    and say no more of how tokens are chosen than a temperature above 0. For
    others, and where no prompt of some tokens is allowed, it is compiled when
    they come.
    """
    number = min(num_tokens, self._limits.tokens)
    body = strict_json.dumps(dict(prompt="a a a a", max_tokens=number)).encode()
    question = read_question(body, self._model, self._limits.tokens)
    largest = min(self._limits.batch, self._limits.queue)
    for power in range(bucket_rows(largest).bit_length()):
      size = min(1 << power, largest)
      try:
        sampling = dataclasses.replace(question.sampling, num_samples=size)
        rows = self._rows(dataclasses.replace(question, sampling=sampling))
      except ApiError:  # not available to clients
        return
      next(self._draw(rows))

  def app(self) -> Starlette:
    """Return what a server of ASGI runs."""
    return Starlette(
      routes=[
        Route("/", self._show_page),
        Route("/health", self._show_health),
        Route("/v1/models", self._list_models),
        Route("/v1/models/{name}", self._show_model),
        Route("/v1/completions", self._complete, methods=["POST"]),
      ],
      exception_handlers={
        ApiError: _show_error,
        HTTPException: _show_http_error,
        Exception: _show_failure,  # of the server itself
      },
      lifespan=self._live,
    )

  def close(self) -> None:
    """Answer no more requests but those that are being drawn."""
    self._batcher.close()

  @contextlib.asynccontextmanager
  async def _live(self, app: Starlette) -> AsyncIterator[None]:
    running = asyncio.create_task(self._batcher.run())
    yield
    self.close()
    await running

  async def _show_page(self, request: Request) -> Response:
    return Response(_PAGE, headers=_PAGE_HEADERS, media_type="text/html")

  async def _show_health(self, request: Request) -> Response:
    busy = dict(
      running=self._batcher.num_running, waiting=self._batcher.num_waiting
    )
    return _json(dict(status="ok", **busy))

  async def _list_models(self, request: Request) -> Response:
    self._check_key(request)
    return _json(dict(object="list", data=[self._about()]))

  async def _show_model(self, request: Request) -> Response:
    self._check_key(request)
    name = request.path_params["name"]
    if name != self._model:
      raise ApiError(404, f"there is no model {name!r} here.", "model")
    return _json(self._about())

  def _about(self) -> dict:
    return dict(
      id=self._model,
      object="model",
      created=0,
      owned_by="lmjax",
      max_tokens=self._limits.tokens,
    )

  async def _complete(self, request: Request) -> Response:
    self._check_key(request)
    body = await _body(request)
    question = read_question(body, self._model, self._limits.tokens)
    rows = await asyncio.to_thread(self._rows, question)
    if self._sampler.reads_sources:  # behind which no text stands
      nothing = ("",) * len(question.prompts)
      question = dataclasses.replace(question, prompts=nothing)
    answer = Answer(
      question,
      self._model,
      self._sampler.tokenizer,
      self._names,
      sum(_length(row) for row in rows[:: question.sampling.num_samples]),
    )
    try:
      self._batcher.add(rows)
      if not question.streams:
        return await _unless_gone(request, rows, answer)
    except Exception as error:
      raise _api_error(error) from error
    events = _events(rows, answer, question.counts)
    headers = {"cache-control": "no-store"}
    return StreamingResponse(events, 200, headers, "text/event-stream")

  def _rows(self, question: Question) -> list[Row]:
    """Turn a request into rows.

    Raises:
      ApiError: if it asks for more than the limits allow.
    """
    number = len(question.prompts) * question.sampling.num_samples
    if number > self._limits.queue:
      raise ApiError(
        400,
        f"{number} texts are more than the {self._limits.queue} that may wait; "
        "ask for fewer at a time.",
        "n",
      )
    sampler = self._sampler
    if question.echo and sampler.reads_sources:
      raise ApiError(
        400,
        "texts that are written for others do not stand behind them; leave "
        "echo away.",
        "echo",
      )
    try:
      filters = self._filters(question)
      requests = sampler.requests(question.prompts, question.sampling)
    except UsageError as error:
      raise ApiError(400, str(error)) from error
    if not question.has_seed:
      requests = [x._replace(seed=secrets.randbits(32)) for x in requests]
    inbox = asyncio.Queue()
    rows = [
      Row(
        request,
        filters,
        StreamingDetokenizer(sampler.tokenizer, request.stop_strings),
        MAX_TOP_LOGPROBS
        if question.num_top_logprobs
        else 0,  # or more would be compiled
        index,
        inbox,
      )
      for index, request in enumerate(requests)
    ]
    longest = max(map(_length, rows))
    if longest > self._limits.prompt:
      raise ApiError(
        400,
        f"the prompt has {longest} tokens, and {self._limits.prompt} are "
        "allowed; shorten it.",
        "prompt",
      )
    return rows

  def _filters(self, question: Question) -> tuple[Filter, ...]:
    """Return what tokens are chosen by."""
    filters = question.sampling.logits_processors(self._sampler.tokenizer)
    if not question.bias:
      return tuple(filters)
    bias_V = np.zeros(len(self._names), np.float32)
    if max(question.bias) >= len(bias_V):
      raise ApiError(
        400, f"logit_bias: there are {len(bias_V)} tokens.", "logit_bias"
      )
    bias_V[list(question.bias)] = list(question.bias.values())
    return (LogitBias(bias_V), *filters)

  def _check_key(self, request: Request) -> None:
    given = request.headers.get("authorization", "").encode()
    if self._key and not hmac.compare_digest(
      given, f"Bearer {self._key}".encode()
    ):
      raise ApiError(401, "give the server's API key.", code="invalid_api_key")


def _drawing(sampler: TextSampler, variables: PyTree) -> Draw:
  """Return what draws rows of one kind."""

  def draw(rows: Sequence[Row]) -> Iterator[list[str]]:
    requests = [row.request for row in rows]
    processors = stack([row.filters for row in rows], bucket_rows(len(rows)))
    for texts, _ in sampler.stream_requests(
      variables,
      requests,
      sampler.chain(requests, processors),
      [row.text for row in rows],
      chunk_size=_CHUNK,
      num_top_logprobs=max(row.num_top_logprobs for row in rows),
    ):
      yield texts

  return draw


def _length(row: Row) -> int:
  """Count the tokens of a row's prompt."""
  source = row.request.source
  return len(row.request.tokens if source is None else source)


async def _body(request: Request) -> bytes:
  """Read the body of a request, if it is of ordinary size."""
  body = bytearray()
  async for part in request.stream():
    body += part
    if len(body) > _MOST_BYTES:
      raise ApiError(413, f"a request may have {_MOST_BYTES} bytes.")
  return bytes(body)


async def _events(
  rows: Sequence[Row], answer: Answer, counts: bool
) -> AsyncIterator[str]:
  """Write what comes of rows as server-sent events."""
  try:
    async for index, news in news_of(rows):
      yield _event(answer.part(index, news))
    if counts:
      yield _event(answer.counts())
    yield "data: [DONE]\n\n"
  except Exception as error:  # the status was sent long ago
    yield _event(_api_error(error).body())
  finally:
    _leave(rows)


def _event(value: dict) -> str:
  return f"data: {strict_json.dumps(value, ensure_ascii=False)}\n\n"


async def _unless_gone(
  request: Request, rows: Sequence[Row], answer: Answer
) -> Response:
  """Wait for rows as long as the client does."""

  async def gather() -> Response:
    parts = [answer.part(*news) async for news in news_of(rows)]
    return _json(answer.whole(parts))

  async def watch() -> Response:
    while (await request.receive())["type"] != "http.disconnect":
      pass
    return Response(status_code=204)  # the client is gone

  tasks = [asyncio.create_task(gather()), asyncio.create_task(watch())]
  try:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return (tasks[0] if tasks[0] in done else tasks[1]).result()
  finally:
    _leave(rows)
    for task in tasks:
      task.cancel()


def _leave(rows: Sequence[Row]) -> None:
  """Mark rows whose client is gone."""
  for row in rows:
    row.wanted = False


def _json(value: dict, status: int = 200, **headers: str) -> Response:
  text = strict_json.dumps(value, ensure_ascii=False)
  return Response(text, status, headers, "application/json")


def _api_error(error: Exception) -> ApiError:
  """Say in a client's words what went wrong."""
  if isinstance(error, ApiError):
    return error
  if isinstance(error, QueueFull):
    message = "too many texts wait to be written; try again soon."
    return ApiError(429, message, code="rate_limit_exceeded")
  if isinstance(error, ServerClosing):
    return ApiError(503, "the server is closing; ask another.")
  if isinstance(error, UsageError):
    return ApiError(400, str(error))
  logging.error("The server failed.", exc_info=error)
  return ApiError(500, "the server failed; its log says more.")


async def _show_error(request: Request, error: ApiError) -> Response:
  headers = {"retry-after": "1"} if error.status in (429, 503) else {}
  return _json(error.body(), error.status, **headers)


async def _show_http_error(request: Request, error: HTTPException) -> Response:
  message = (
    f"{request.method} {request.url.path} is not offered; there are GET "
    "/v1/models and POST /v1/completions."
  )
  return await _show_error(request, ApiError(error.status_code, message))


async def _show_failure(request: Request, error: Exception) -> Response:
  return await _show_error(request, _api_error(error))
