# SPDX-License-Identifier: Apache-2.0
"""The machine: what is set before JAX starts, and what the devices can do."""

import ctypes
import os
import sys
from pathlib import Path

import jax

# Dense peak of one device in FLOP/s at the dtype of the matmuls, as published
# by the makers; keys are parts of jax.Device.device_kind.
PEAK_FLOPS = {
  "bfloat16": {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5": 197e12,
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


def keep_memory() -> None:
  """Ask glibc not to give memory back to the system between steps.

  It would be faulted in again page by page in the next one; in a small
  Transformer on a CPU that is a fifth of the step. LMJAX_KEEP_MEMORY=0 turns
  this off.
  """
  if sys.platform != "linux" or os.environ.get("LMJAX_KEEP_MEMORY") == "0":
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt:  # absent from musl
    for option in (-1, -2, -3):  # M_TRIM_, M_TOP_PAD, M_MMAP_THRESHOLD
      mallopt(option, 1 << 30)


def start() -> None:
  """Prepare JAX; call it first, before any array is made.

  Compiled programs are kept in the user's cache folder (set
  JAX_COMPILATION_CACHE_DIR to move them, JAX_ENABLE_COMPILATION_CACHE=0 to do
  without). Several processes find each other where JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID say how.
  """
  keep_memory()
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
