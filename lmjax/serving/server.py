# SPDX-License-Identifier: Apache-2.0
"""The HTTP server process, which runs until a signal stops it."""

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from lmjax.errors import UsageError
from lmjax.serving.app import Service

# Seconds that texts in progress may take after a signal.
_SHUTDOWN_TIMEOUT = 30


def serve(
  service: Service,
  host: str,
  port: int,
  prepare: Callable[[], None] = lambda: None,
) -> None:
  """Serve requests until SIGINT or SIGTERM.

  Texts in progress are then finished, and waiting requests are refused.

  Args:
    service: handles the requests.
    host: address to listen on.
    port: port to listen on; 0 for any free one.
    prepare: called after the socket is open and before the first request is
      handled; requests that arrive meanwhile wait.

  Raises:
    UsageError: if the server cannot listen on this address.
  """
  # The kernel queues connections from here on, so clients that arrive while
  # programs compile wait instead of being refused.
  listener = _listen(host, port)
  prepare()
  config = uvicorn.Config(
    service.app(),
    log_config=None,
    access_log=False,
    timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
  )
  shown = f"[{host}]" if ":" in host else host
  print(f"Listening on http://{shown}:{listener.getsockname()[1]}/", flush=True)
  _Server(config, service).run(sockets=[listener])


class _Server(uvicorn.Server):
  """A uvicorn server that closes its service on a signal."""

  def __init__(self, config: uvicorn.Config, service: Service):
    super().__init__(config)
    self._service = service

  def handle_exit(self, sig: int, frame: FrameType | None) -> None:
    """Start the shutdown on SIGINT or SIGTERM."""
    # Before uvicorn waits for open connections: those of waiting requests would
    # stay open until their texts are generated, or the timeout is over.
    self._service.close()
    super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family)
  except OSError as error:
    raise UsageError(
      f"the server cannot listen on {host}:{port} ({error.strerror}); choose "
      "another --host or --port."
    ) from error
