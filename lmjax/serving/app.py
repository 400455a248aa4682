# SPDX-License-Identifier: Apache-2.0
"""The HTTP application, compatible with the OpenAI completions API.

GET / is a page for trying the model, GET /health returns the load, GET
/v1/models the name of the model, and POST /v1/completions generates text; see
lmjax.serving.completion_request for its fields.
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
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.decoding.logits_processors.logit_bias import LogitBias
from lmjax.decoding.logits_processors.stacking import stack
from lmjax.errors import UsageError, check_positive
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.requests import bucket_rows
from lmjax.generation.text_sampler import TextSampler
from lmjax.serving.api_error import ApiError
from lmjax.serving.batcher import (
  Batcher,
  GenerateBatch,
  QueueFull,
  Row,
  ServerClosing,
  receive,
)
from lmjax.serving.completion_request import (
  MAX_TOP_LOGPROBS,
  CompletionRequest,
  parse_request,
)
from lmjax.serving.completion_response import CompletionResponse
from lmjax.types import PyTree

# Tokens generated before they are sent. Larger chunks return to the host less
# often; smaller ones stream sooner, and free the rows of disconnected clients
# sooner.
_CHUNK_SIZE = 16
_MAX_BYTES = 1 << 20  # of the body of a request
_PAGE = resources.files(__package__).joinpath("page.html").read_text("utf-8")
_PAGE_HEADERS = {
  "Content-Security-Policy": "default-src 'none'; connect-src 'self'; "
  "img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
}


class Limits(NamedTuple):
  """Limits of a server.

  Attributes:
    batch: maximum number of texts generated at once.
    queue: maximum number of waiting texts.
    tokens: maximum number of new tokens of a request.
    prompt: maximum number of tokens of a prompt.
  """

  batch: int = 64
  queue: int = 256
  tokens: int = 1024
  prompt: int = 4096


class Service:
  """The handlers of all paths.

  Args:
    sampler: generates the texts.
    variables: the variables of its model.
    model: name of the model.
    limits: limits of the server.
    key: API key that clients must send; empty for none.

  Raises:
    UsageError: if a limit is below 1, or the key is not ASCII.
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
      raise UsageError("api_key must be ASCII, because HTTP headers are.")
    self._sampler, self._model = sampler, model
    self._limits, self._key = limits, key
    self._names = sampler.tokenizer.names()
    self._generate = _batch_generator(sampler, variables)
    self._batcher = Batcher(self._generate, limits.batch, limits.queue)

  def warm_up(self, num_tokens: int) -> None:
    """Compile the programs for `num_tokens` tokens and all batch sizes.

    These are the programs of requests with short prompts, without
    log-probabilities, and with no sampling parameters but a temperature above
    0. Others are compiled by their first request.
    """
    number = min(num_tokens, self._limits.tokens)
    body = strict_json.dumps(dict(prompt="a a a a", max_tokens=number)).encode()
    parsed = parse_request(body, self._model, self._limits.tokens)
    largest = min(self._limits.batch, self._limits.queue)
    for power in range(bucket_rows(largest).bit_length()):
      size = min(1 << power, largest)
      try:
        sampling = dataclasses.replace(parsed.sampling, num_samples=size)
        rows = self._rows(dataclasses.replace(parsed, sampling=sampling))
      except ApiError:  # the limits do not allow such a request
        return
      next(self._generate(rows))

  def app(self) -> Starlette:
    """Return the ASGI application."""
    return Starlette(
      routes=[
        Route("/", self._show_page),
        Route("/health", self._show_health),
        Route("/v1/models", self._list_models),
        Route("/v1/models/{name}", self._show_model),
        Route("/v1/completions", self._create_completion, methods=["POST"]),
      ],
      exception_handlers={
        ApiError: _show_error,
        HTTPException: _show_http_error,
        Exception: _show_failure,  # of the server itself
      },
      lifespan=self._lifespan,
    )

  def close(self) -> None:
    """Refuse further requests; texts in progress are finished."""
    self._batcher.close()

  @contextlib.asynccontextmanager
  async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
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
      raise ApiError(404, f"the model {name!r} does not exist.", "model")
    return _json(self._about())

  def _about(self) -> dict:
    return dict(
      id=self._model,
      object="model",
      created=0,
      owned_by="lmjax",
      max_tokens=self._limits.tokens,
    )

  async def _create_completion(self, request: Request) -> Response:
    self._check_key(request)
    body = await _body(request)
    parsed = parse_request(body, self._model, self._limits.tokens)
    # Encoding a long prompt takes a while, which must not block the event loop.
    rows = await asyncio.to_thread(self._rows, parsed)
    if self._sampler.reads_sources:
      # Targets do not continue their sources, so no space is put between them.
      empty = ("",) * len(parsed.prompts)
      parsed = dataclasses.replace(parsed, prompts=empty)
    response = CompletionResponse(
      parsed,
      self._model,
      self._sampler.tokenizer,
      self._names,
      sum(_length(row) for row in rows[:: parsed.sampling.num_samples]),
    )
    try:
      self._batcher.add(rows)
      if not parsed.stream:
        return await _complete_if_connected(request, rows, response)
    except Exception as error:
      raise _api_error(error) from error
    events = _events(rows, response, parsed.include_usage)
    headers = {"cache-control": "no-store"}
    return StreamingResponse(events, 200, headers, "text/event-stream")

  def _rows(self, parsed: CompletionRequest) -> list[Row]:
    """Return the rows of a request.

    Raises:
      ApiError: if it exceeds the limits.
    """
    number = len(parsed.prompts) * parsed.sampling.num_samples
    if number > self._limits.queue:
      raise ApiError(
        400,
        f"the request has {number} texts, but the queue holds "
        f"{self._limits.queue}; send fewer at a time.",
        "n",
      )
    sampler = self._sampler
    if parsed.echo and sampler.reads_sources:
      raise ApiError(
        400,
        "echo is not supported by seq2seq models, whose texts do not continue "
        "their sources; omit echo.",
        "echo",
      )
    try:
      processors = self._logits_processors(parsed)
      requests = sampler.requests(parsed.prompts, parsed.sampling)
    except UsageError as error:
      raise ApiError(400, str(error)) from error
    if not parsed.has_seed:
      requests = [x._replace(seed=secrets.randbits(32)) for x in requests]
    # This thread has no event loop; a queue binds to the loop that
    # first waits on it.
    inbox = asyncio.Queue()
    rows = [
      Row(
        request,
        processors,
        StreamingDetokenizer(sampler.tokenizer, request.stop_strings),
        # All or none, so that two programs are compiled instead of six.
        MAX_TOP_LOGPROBS if parsed.num_top_logprobs else 0,
        index,
        inbox,
      )
      for index, request in enumerate(requests)
    ]
    longest = max(map(_length, rows))
    if longest > self._limits.prompt:
      raise ApiError(
        400,
        f"the prompt has {longest} tokens, but the limit is "
        f"{self._limits.prompt}; shorten it.",
        "prompt",
      )
    return rows

  def _logits_processors(
    self, parsed: CompletionRequest
  ) -> tuple[LogitsProcessor, ...]:
    """Return the logits processors of a request."""
    processors = parsed.sampling.logits_processors(self._sampler.tokenizer)
    if not parsed.bias:
      return tuple(processors)
    bias_V = np.zeros(len(self._names), np.float32)
    if max(parsed.bias) >= len(bias_V):
      raise ApiError(
        400,
        f"logit_bias must be of token ids below {len(bias_V)}.",
        "logit_bias",
      )
    bias_V[list(parsed.bias)] = list(parsed.bias.values())
    return (LogitBias(bias_V), *processors)

  def _check_key(self, request: Request) -> None:
    # Compared in constant time, so that response times do not reveal the key,
    # and as bytes, because compare_digest rejects strings that are not ASCII.
    given = request.headers.get("authorization", "").encode()
    if self._key and not hmac.compare_digest(
      given, f"Bearer {self._key}".encode()
    ):
      raise ApiError(
        401,
        "the API key is missing or wrong; send Authorization: Bearer KEY.",
        code="invalid_api_key",
      )


def _batch_generator(sampler: TextSampler, variables: PyTree) -> GenerateBatch:
  """Return a function that generates the texts of rows of one kind."""

  def generate(rows: Sequence[Row]) -> Iterator[list[str]]:
    requests = [row.request for row in rows]
    processors = stack(
      [row.logits_processors for row in rows], bucket_rows(len(rows))
    )
    for texts, _ in sampler.stream_requests(
      variables,
      requests,
      sampler.chain(requests, processors),
      [row.text for row in rows],
      chunk_size=_CHUNK_SIZE,
      num_top_logprobs=max(row.num_top_logprobs for row in rows),
    ):
      yield texts

  return generate


def _length(row: Row) -> int:
  """Return the number of tokens of a row's prompt or source."""
  source = row.request.source
  return len(row.request.tokens if source is None else source)


async def _body(request: Request) -> bytes:
  """Read the body of a request, up to the maximum size."""
  # The bytes are counted as they arrive, because a chunked body has no
  # Content-Length, and a client may send a wrong one.
  body = bytearray()
  async for part in request.stream():
    body += part
    if len(body) > _MAX_BYTES:
      raise ApiError(
        413, f"the body of a request may have at most {_MAX_BYTES} bytes."
      )
  return bytes(body)


async def _events(
  rows: Sequence[Row], response: CompletionResponse, include_usage: bool
) -> AsyncIterator[str]:
  """Yield the new text of rows as server-sent events."""
  try:
    async for index, delta in receive(rows):
      yield _event(response.chunk(index, delta))
    if include_usage:
      yield _event(response.usage_chunk())
    yield "data: [DONE]\n\n"
  except Exception as error:
    # The status was sent before, so the error is an event.
    yield _event(_api_error(error).body())
  finally:
    # Also when the client disconnects: Starlette then cancels this generator.
    _disconnect(rows)


def _event(value: dict) -> str:
  return f"data: {strict_json.dumps(value, ensure_ascii=False)}\n\n"


async def _complete_if_connected(
  request: Request, rows: Sequence[Row], response: CompletionResponse
) -> Response:
  """Wait for all rows, unless the client disconnects."""

  async def gather() -> Response:
    chunks = [response.chunk(*each) async for each in receive(rows)]
    return _json(response.complete(chunks))

  async def watch() -> Response:
    while (await request.receive())["type"] != "http.disconnect":
      pass
    return Response(status_code=204)  # never sent: the client is gone

  # Starlette reports a disconnect only to a handler that receives, so one task
  # receives while the other waits for the text.
  tasks = [asyncio.create_task(gather()), asyncio.create_task(watch())]
  try:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return (tasks[0] if tasks[0] in done else tasks[1]).result()
  finally:
    _disconnect(rows)
    for task in tasks:
      task.cancel()


def _disconnect(rows: Sequence[Row]) -> None:
  """Mark rows of a disconnected client, which stops their generation."""
  for row in rows:
    row.is_connected = False


def _json(value: dict, status: int = 200, **headers: str) -> Response:
  text = strict_json.dumps(value, ensure_ascii=False)
  return Response(text, status, headers, "application/json")


def _api_error(error: Exception) -> ApiError:
  """Return the error response of an exception."""
  if isinstance(error, ApiError):
    return error
  if isinstance(error, QueueFull):
    message = "too many requests are waiting; try again later."
    return ApiError(429, message, code="rate_limit_exceeded")
  if isinstance(error, ServerClosing):
    return ApiError(503, "the server is shutting down; try another one.")
  if isinstance(error, UsageError):
    return ApiError(400, str(error))
  logging.error("The server failed.", exc_info=error)
  return ApiError(500, "the server failed; see its log.")


async def _show_error(request: Request, error: ApiError) -> Response:
  headers = {"retry-after": "1"} if error.status in (429, 503) else {}
  return _json(error.body(), error.status, **headers)


async def _show_http_error(request: Request, error: HTTPException) -> Response:
  message = (
    f"{request.method} {request.url.path} does not exist; use GET /v1/models "
    "or POST /v1/completions."
  )
  return await _show_error(request, ApiError(error.status_code, message))


async def _show_failure(request: Request, error: Exception) -> Response:
  return await _show_error(request, _api_error(error))
