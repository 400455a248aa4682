# SPDX-License-Identifier: Apache-2.0
"""The generate method of Hugging Face's transformers, on GPT-2's model."""

import time
from pathlib import Path

import torch
import transformers

from benchmarks import parameters, peer_torch
from benchmarks.peer_torch import DEVICE, peak_bytes
from benchmarks.torch_models import gpt2_weights
from benchmarks.workload import NUM_TOKENS, Workload

__all__ = ["make", "peak_bytes"]


def make(work: dict, folder: Path) -> "Generate":
  """Prepare the machine, then the work."""
  peer_torch.start()
  return Generate(Workload(**work), folder)


class Generate:
  """Texts with the cache that generate keeps."""

  def __init__(self, work: Workload, folder: Path):
    config = transformers.GPT2Config(
      vocab_size=work.vocab_size,
      n_embd=work.width,
      n_layer=work.num_layers,
      n_head=work.num_heads,
      n_positions=work.max_context,
      layer_norm_epsilon=1e-6,
    )
    model = transformers.GPT2LMHeadModel(config)
    weights = gpt2_weights(parameters.load(folder), work.num_layers)
    absent, unknown = model.load_state_dict(weights, strict=False)
    if unknown or {*absent} - {"lm_head.weight"}:  # which is tied
      raise ValueError(f"weights are not GPT-2's: {absent}, {unknown}")
    self._model = model.to(DEVICE).eval()
    self._choice = dict(do_sample=False)
    if work.top_k != 1:
      self._choice = dict(do_sample=True, top_k=work.top_k)
    self._prompt_BT, self.facts = peer_torch.begin(work, folder, self._logits)
    versions = self.facts["environment"]["versions"]
    versions["transformers"] = transformers.__version__

  def _logits(self, tokens_BT: torch.Tensor) -> torch.Tensor:
    return self._model(tokens_BT).logits

  def _generate(self) -> list[list[int]]:
    return self._model.generate(
      self._prompt_BT,
      attention_mask=torch.ones_like(self._prompt_BT),
      max_new_tokens=NUM_TOKENS,
      min_new_tokens=NUM_TOKENS,
      use_cache=True,
      pad_token_id=0,
      **self._choice,
    ).tolist()

  def run(self, count: int) -> float:
    """Time whole texts; return seconds of one batch of them."""
    began = time.perf_counter()
    for _ in range(count):
      self._generate()
    return (time.perf_counter() - began) / count
