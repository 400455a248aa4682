# SPDX-License-Identifier: Apache-2.0
import importlib.util
import os

import pytest

from lmjax import platform


def test_gpu_flags_are_added_to_those_of_the_user(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  mine = "--xla_gpu_triton_gemm_any=false --xla_dump_to=x"
  monkeypatch.setenv("XLA_FLAGS", mine)
  platform.set_gpu_flags()
  flags = os.environ["XLA_FLAGS"].split()
  assert flags[:2] == mine.split()
  names = [flag.split("=")[0].removeprefix("--") for flag in flags]
  assert sorted(names) == sorted({*platform.GPU_FLAGS, "xla_dump_to"})


@pytest.mark.parametrize("switch", ["", "0"])
def test_gpu_flags_are_left_out(monkeypatch, switch):
  """Where there is no plugin, or the user says so."""
  found = switch or None
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
  monkeypatch.setenv("LMJAX_GPU_FLAGS", switch)
  monkeypatch.setenv("XLA_FLAGS", "--mine")
  platform.set_gpu_flags()
  assert os.environ["XLA_FLAGS"] == "--mine"


@pytest.mark.parametrize(
  ("model", "changes", "devices"),
  [
    ("lstm", {}, 1),
    ("lstm", {"parallel.virtual_cpu_devices": 3}, 3),
    ("transformer", {}, 1),  # too narrow to gain
    ("transformer", {"model.width": 256}, 4),
    ("transformer", {"model.width": 256, "data.batch_size": 6}, 2),
    ("transformer", {"model.width": 256, "parallel.num_devices": 2}, 2),
    ("transformer", {"model.width": 256, "parallel.virtual_cpu_devices": 1}, 1),
    (
      "transformer",
      {"model.width": 256, "data.batch_size": 6, "train.num_microbatches": 2},
      1,
    ),
  ],
)
def test_a_cpu_poses_as_devices_that_divide_the_rows(
  tiny_config, monkeypatch, model, changes, devices
):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
  config = tiny_config(model, **{"parallel.num_devices": 0, **changes})
  assert platform.virtual_devices(config) == devices
