# SPDX-License-Identifier: Apache-2.0
"""The machine: what is set before JAX starts, and what the devices can do."""

import ctypes
import importlib.util
import math
import os
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

# Dense peak of one device in FLOP/s at the dtype of the matmuls, as published
# by the makers; keys are parts of jax.Device.device_kind.
PEAK_FLOPS = {
  "bfloat16": {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "TPU v6": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v4": 275e12,
  },
  "float32": {  # with TF32, which XLA uses on these GPUs by default
    "H200": 494e12,
    "H100": 494e12,
    "A100": 156e12,
  },
}


def cache_folder() -> Path:
  """Return the folder for what can be made again: $XDG_CACHE_HOME/lmjax."""
  root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(root) / "lmjax"


# Settings of glibc's allocator: number → value; names as in <malloc.h>.
_MALLOPT = {
  -1: -1,  # M_TRIM_THRESHOLD: keep whatever is free at the top
  -2: 1 << 30,  # M_TOP_PAD: ask the system for much at a time
  -3: -1,  # M_MMAP_THRESHOLD: no mapping of its own for a large array
  -8: 1,  # M_ARENA_MAX: those of other threads hold 64 MiB and map the rest
}

# XLA flags that are set where there is an NVIDIA GPU and the user's XLA_FLAGS
# do not name them.
GPU_FLAGS = {
  # Sums over devices run behind the backward pass that they do not wait for.
  "xla_gpu_enable_latency_hiding_scheduler": "true",
  # The steps of a scan are launched as one graph, not kernel by kernel.
  "xla_gpu_enable_command_buffer": "+WHILE",
  # Autotuning may take a Triton kernel for any matmul that it fits.
  "xla_gpu_triton_gemm_any": "true",
}


def keep_memory() -> None:
  """Ask glibc not to give memory back to the system between steps.

  It would be faulted in again page by page in the next one, which on a CPU is
  up to a third of a step. LMJAX_KEEP_MEMORY=0 turns this off.
  """
  if sys.platform != "linux" or os.environ.get("LMJAX_KEEP_MEMORY") == "0":
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt:  # absent from musl
    for option, value in _MALLOPT.items():
      mallopt(option, value)


def set_gpu_flags() -> None:
  """Add GPU_FLAGS to the environment where JAX has its CUDA plugin.

  LMJAX_GPU_FLAGS=0 turns this off.
  """
  plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
  if os.environ.get("LMJAX_GPU_FLAGS") == "0" or not any(
    importlib.util.find_spec(name) for name in plugins
  ):
    return
  flags = os.environ.get("XLA_FLAGS", "")
  for name, value in GPU_FLAGS.items():
    if name not in flags:
      flags += f" --{name}={value}"
  os.environ["XLA_FLAGS"] = flags.strip()


def num_cores() -> int:
  """Count the cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # Linux
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def virtual_devices(config: ConfigDict) -> int:
  """Say as how many devices a CPU is to pose in training.

  Rows of a batch are then divided among them, and each computes with a core of
  its own instead of all cores with each array. Measured on two cores, wide
  Transformers gain up to a fifth; small ones and recurrent networks, whose
  kernels each device would read at every step, gain nothing or lose.

  Args:
    config: parallel.virtual_cpu_devices says how many; 0 to choose.
  """
  parallel, model = config.parallel, config.model
  if parallel.virtual_cpu_devices:
    return parallel.virtual_cpu_devices
  rows = config.data.batch_size // max(config.train.num_microbatches, 1)
  alone = int(os.environ.get("JAX_NUM_PROCESSES", 1)) == 1
  if model.name != "transformer" or model.width < 256 or not alone:
    return 1
  wanted = parallel.num_devices or num_cores()
  return math.gcd(max(rows, 1), wanted)


def start(virtual_cpu_devices: int = 1) -> None:
  """Prepare JAX; call it first, before any array is made.

  Compiled programs are kept in the user's cache folder (set
  JAX_COMPILATION_CACHE_DIR to move them, JAX_ENABLE_COMPILATION_CACHE=0 to do
  without). Several processes find each other where JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID say how.

  Args:
    virtual_cpu_devices: number of virtual devices of a CPU.
  """
  keep_memory()
  set_gpu_flags()
  if virtual_cpu_devices > 1:
    jax.config.update("jax_num_cpu_devices", virtual_cpu_devices)
  if not jax.config.jax_compilation_cache_dir:
    folder = str(cache_folder() / "compiled")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  if "JAX_COORDINATOR_ADDRESS" in os.environ:
    jax.distributed.initialize(
      num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
      process_id=int(os.environ["JAX_PROCESS_ID"]),
    )


def peak_flops(device_kind: str, dtype: str) -> float | None:
  """Look up a device's peak in FLOP/s; None if it is not known."""
  known = PEAK_FLOPS.get(dtype, {})
  return next((v for key, v in known.items() if key in device_kind), None)
