# SPDX-License-Identifier: Apache-2.0
"""A service behind a socket, until a signal ends it."""

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from lmjax.errors import UsageError
from lmjax.serving.app import Service

_PATIENCE = 30  # seconds in which texts may come to their end


def serve(
  service: Service,
  host: str,
  port: int,
  prepare: Callable[[], None] = lambda: None,
) -> None:
  """Answer requests until SIGINT or SIGTERM.

  What is being drawn then is drawn to its end; what waits is sent away.

  Args:
    service: what answers.
    host: the address to listen on.
    port: 0 for any that is free.
    prepare: called before anything is answered, once the address is ours; who
      asks meanwhile waits.

  Raises:
    UsageError: if that cannot be listened on.
  """
  listener = _listen(host, port)
  prepare()
  config = uvicorn.Config(
    service.app(),
    log_config=None,
    access_log=False,
    timeout_graceful_shutdown=_PATIENCE,
  )
  shown = f"[{host}]" if ":" in host else host
  print(f"Listening on http://{shown}:{listener.getsockname()[1]}/", flush=True)
  _Server(config, service).run(sockets=[listener])


class _Server(uvicorn.Server):
  """A server that tells its service of the end."""

  def __init__(self, config: uvicorn.Config, service: Service):
    super().__init__(config)
    self._service = service

  def handle_exit(self, sig: int, frame: FrameType | None) -> None:
    """Begin to close, on SIGINT or SIGTERM."""
    self._service.close()
    super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family)
  except OSError as error:
    raise UsageError(
      f"{host}:{port} cannot be listened on ({error.strerror}); choose another "
      "--host or --port."
    ) from error
