# SPDX-License-Identifier: Apache-2.0
"""Weights, batches and texts that contenders share, as NumPy files.

Weights keep the names and layouts of lmjax: layers of a Transformer are
stacked along their first axis ("blocks/...").
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.workload import NUM_BATCHES

Parameters = dict[str, np.ndarray]


def save(folder: Path, parameters: Mapping[str, np.ndarray]) -> None:
  """Write weights by name."""
  np.savez(folder / "parameters.npz", **parameters)


def load(folder: Path) -> Parameters:
  """Read what `save` wrote."""
  with np.load(folder / "parameters.npz") as file:
    return dict(file)


def save_batch(
  folder: Path, index: int, inputs: np.ndarray, targets: np.ndarray
) -> None:
  """Write one batch."""
  np.savez(folder / f"batch_{index}.npz", inputs=inputs, targets=targets)


def load_batches(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
  """Read inputs and targets of all batches, int32 [B, T] each."""
  batches = []
  for index in range(NUM_BATCHES):
    with np.load(folder / f"batch_{index}.npz") as file:
      batches.append((file["inputs"], file["targets"]))
  return batches


def save_text(
  folder: Path, prompt: Sequence[int], continuation: Sequence[int]
) -> None:
  """Write the tokens of the prompts, and some tokens after them."""
  np.savez(folder / "text.npz", prompt=prompt, continuation=continuation)


def load_text(folder: Path) -> tuple[list[int], list[int]]:
  """Read what `save_text` wrote."""
  with np.load(folder / "text.npz") as file:
    return file["prompt"].tolist(), file["continuation"].tolist()


def block(parameters: Parameters, index: int) -> Parameters:
  """Pick the weights of one block of a Transformer.

  >>> block({"blocks/norm/scale": np.array([[1.0], [2.0]])}, 1)
  {"norm/scale": np.array([2.0])}
  """
  return {
    name.removeprefix("blocks/"): leaf[index]
    for name, leaf in parameters.items()
    if name.startswith("blocks/")
  }
