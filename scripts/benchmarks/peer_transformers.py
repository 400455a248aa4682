# SPDX-License-Identifier: Apache-2.0
"""The generate method of Hugging Face's transformers, on GPT-2's model."""

import time
from pathlib import Path

import torch
import transformers

from benchmarks import peer_torch
from benchmarks.peer_torch import DEVICE, peak_bytes
from benchmarks.work import NUM_TOKENS, PROMPT_LENGTH, Work

__all__ = ["make", "peak_bytes"]


def make(work: dict, folder: Path) -> "Generate":
  """Prepare the machine, then the work."""
  del folder
  peer_torch.start()
  return Generate(Work(**work))


class Generate:
  """Text by sampling, with the cache that generate keeps."""

  def __init__(self, work: Work):
    config = transformers.GPT2Config(
      vocab_size=work.vocab_size,
      n_embd=work.width,
      n_layer=work.num_layers,
      n_head=work.num_heads,
      n_positions=work.context,
    )
    model = transformers.GPT2LMHeadModel(config)
    self._model = model.to(DEVICE).eval()
    self._prompt_BT = torch.randint(
      work.vocab_size, (work.batch_size, PROMPT_LENGTH), device=DEVICE
    )
    found = peer_torch.environment()
    found["versions"]["transformers"] = transformers.__version__
    self.facts = dict(environment=found)

  def _generate(self) -> list[list[int]]:
    return self._model.generate(
      self._prompt_BT,
      attention_mask=torch.ones_like(self._prompt_BT),
      do_sample=True,
      top_k=0,
      max_new_tokens=NUM_TOKENS,
      min_new_tokens=NUM_TOKENS,
      use_cache=True,
      pad_token_id=0,
    ).tolist()

  def run(self, count: int) -> float:
    """Time whole texts; return seconds of one batch of them."""
    began = time.perf_counter()
    for _ in range(count):
      self._generate()
    return (time.perf_counter() - began) / count
