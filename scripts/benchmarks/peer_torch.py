# SPDX-License-Identifier: Apache-2.0
"""PyTorch as its users run it: the train step, and a loop that generates."""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks import parameters
from benchmarks.memory import peak_resident_bytes
from benchmarks.torch_models import make_model
from benchmarks.workload import (
  LEARNING_RATE,
  NUM_COMPARED,
  NUM_TOKENS,
  Workload,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(work: dict, folder: Path) -> "Train | Generate":
  """Prepare the machine, then the work."""
  start()
  work = dict(work)
  compiled = work.pop("compiled")
  work = Workload(**work)
  if work.kind == "generate":
    return Generate(work, folder)
  return Train(work, folder, compiled)


def start() -> None:
  """Use all cores, and on a GPU the matmuls that JAX uses there too."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.set_float32_matmul_precision("high")
  torch.manual_seed(0)


def peak_bytes() -> int:
  """Return the peak memory of the device, or of the process on a CPU."""
  if DEVICE == "cuda":
    return torch.cuda.max_memory_allocated()
  return peak_resident_bytes()


def environment() -> dict:
  """Name version, device and threads."""
  device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
  return dict(
    versions={"torch": torch.__version__},
    devices=[device],
    threads=torch.get_num_threads(),
  )


def synchronize() -> None:
  """Wait for the device."""
  if DEVICE == "cuda":
    torch.cuda.synchronize()


@torch.inference_mode()
def begin(
  work: Workload, folder: Path, logits: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, dict]:
  """Return the prompts, [B, T], and facts.

  Args:
    work: what is generated.
    folder: folder of the prompt and of tokens whose losses are reported.
    logits: turns tokens [B, T] into logits [B, T, V].
  """
  prompt, continuation = parameters.load_text(folder)
  text_BT = torch.tensor([prompt + continuation], device=DEVICE)
  losses_T = torch.nn.functional.cross_entropy(
    logits(text_BT)[0, :-1], text_BT[0, 1:], reduction="none"
  )
  prompt_BT = text_BT[:, : len(prompt)].repeat(work.batch_size, 1)
  losses = losses_T[-len(continuation) :].tolist()
  return prompt_BT, dict(environment=environment(), losses=losses)


class Train:
  """A train step with Adam at its defaults.

  Args:
    work: what is trained.
    folder: where the first weights and batches lie.
    compiled: whether torch.compile is used.
  """

  def __init__(self, work: Workload, folder: Path, compiled: bool):
    model = make_model(work, parameters.load(folder)).to(DEVICE)
    self._optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    self._model = torch.compile(model) if compiled else model
    self._autocast = torch.autocast(
      DEVICE, torch.bfloat16, enabled=work.dtype == "bfloat16"
    )
    batches = [
      tuple(torch.from_numpy(part).long().to(DEVICE) for part in batch)
      for batch in parameters.load_batches(folder)
    ]
    self._batches = itertools.cycle(batches)
    twice = [p for name, p in model.named_parameters() if "bias_hh" in name]
    losses = [self._step(fixed=twice).item() for _ in range(NUM_COMPARED)]
    self.facts = dict(environment=environment(), losses=losses)

  def _step(self, fixed: Sequence[nn.Parameter] = ()) -> torch.Tensor:
    """Make an update; while losses are compared, of one bias in each LSTM."""
    inputs_BT, targets_BT = next(self._batches)
    with self._autocast:
      loss = self._model(inputs_BT, targets_BT)
    loss.backward()
    for parameter in fixed:
      parameter.grad = None
    self._optimizer.step()
    self._optimizer.zero_grad(set_to_none=True)
    return loss.detach()

  def run(self, count: int) -> float:
    """Time steps; return seconds of one."""
    began = time.perf_counter()
    for _ in range(count):
      self._step()
    synchronize()
    return (time.perf_counter() - began) / count


class Generate:
  """A loop that feeds an LSTM the tokens that it samples."""

  def __init__(self, work: Workload, folder: Path):
    model = make_model(work, parameters.load(folder))
    self._model = model.to(DEVICE).eval()
    prompt_BT, self.facts = begin(work, folder, self._logits)
    self._prompt_TB = prompt_BT.T

  def _logits(self, tokens_BT: torch.Tensor) -> torch.Tensor:
    return self._model.read(tokens_BT.T)[0].transpose(0, 1)

  @torch.inference_mode()
  def _generate(self) -> list[list[int]]:
    tokens_TB, state, sampled = self._prompt_TB, None, []
    for _ in range(NUM_TOKENS):
      logits_TBV, state = self._model.read(tokens_TB, state)
      probabilities_BV = torch.softmax(logits_TBV[-1], dim=-1)
      tokens_TB = torch.multinomial(probabilities_BV, 1).T
      sampled.append(tokens_TB)
    return torch.cat(sampled).T.tolist()

  def run(self, count: int) -> float:
    """Time whole texts; return seconds of one batch of them."""
    began = time.perf_counter()
    for _ in range(count):
      self._generate()
    return (time.perf_counter() - began) / count
