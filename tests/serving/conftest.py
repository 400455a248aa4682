# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a small trained model, and HTTP servers of it."""

import socket
import threading

import pytest
import uvicorn

from lmjax.run import Run
from lmjax.serving.app import Limits, Service
from lmjax.training.loop import train


@pytest.fixture(scope="module")
def run(tiny_config, text_folder, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "small"
  text = {
    "data.source": "text",
    "data.path": str(text_folder),
    "data.split_by": "name",
  }
  assert train(tiny_config("lstm", **text), folder) == 0
  return Run(folder)


@pytest.fixture(scope="module")
def start(run):
  """Start servers on free ports: start(limits) → (address, service)."""
  started = []

  def make(limits=Limits(), key=""):  # noqa: B008
    service = Service(run.sampler, run.variables, "small", limits, key)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(service.app(), log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    started.append((server, thread))
    return f"http://127.0.0.1:{listener.getsockname()[1]}", service

  yield make
  for server, _ in started:
    server.should_exit = True
  for _, thread in started:
    thread.join()


@pytest.fixture(scope="module")
def address(start):
  return start()[0]
