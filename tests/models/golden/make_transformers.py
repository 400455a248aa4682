# SPDX-License-Identifier: Apache-2.0
"""Write transformers.npz: what PyTorch's own layers and T5 compute in float64.

python tests/models/golden/make_transformers.py, with torch 2.13 and
transformers 5.23. Names are "case/kind/name": kinds are `inputs`,
`parameters`, `out`, `cotangent` (of the output) and `gradients`. The
inputs are float32 values; everything is computed in float64, so that what a
comparison measures is the rounding of the tested implementation alone.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import T5Config, T5Model
from transformers.models.t5.modeling_t5 import T5Attention

B, T, S, D, H, F, V, L = 2, 5, 4, 8, 2, 12, 11, 2
HIDDEN = torch.tensor([[False] * 4, [False, False, True, True]])  # padding
FUTURE = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
arrays = {}


def gelu(x):
  return nn.functional.gelu(x, approximate="tanh")


def normal(shape, generator):
  """Sample float32 values, which every precision represents exactly."""
  return torch.randn(shape, generator=generator).double()


def record(case, module, inputs, run):
  """Store a module's parameters, its output and the gradients of both."""
  generator = torch.Generator().manual_seed(len(arrays))
  module.double()
  with torch.no_grad():
    for parameter in module.parameters():
      noise = normal(parameter.shape, generator)
      parameter.copy_(0.5 * noise + (parameter == 1.0))
  out = run(module, **inputs)
  if isinstance(out, tuple):
    out, weights = out
    arrays[f"{case}/out/weights"] = weights
  cotangent = normal(out.shape, generator)
  out.backward(cotangent)
  arrays[f"{case}/out/out"], arrays[f"{case}/cotangent/cotangent"] = (
    out,
    cotangent,
  )
  for name, leaf in inputs.items():
    arrays[f"{case}/inputs/{name}"] = leaf
    if leaf.requires_grad:
      arrays[f"{case}/gradients/{name}"] = leaf.grad
  for name, parameter in module.named_parameters():
    arrays[f"{case}/parameters/{name}"] = parameter
    arrays[f"{case}/gradients/{name}"] = parameter.grad


def draw(time, seed):
  generator = torch.Generator().manual_seed(seed)
  return normal((B, time, D), generator).requires_grad_()


def multi_head(module, x, memory=None):
  other = x if memory is None else memory
  mask = dict(attn_mask=FUTURE) if memory is None else {}
  padding = None if memory is None else HIDDEN
  return module(
    x,
    other,
    other,
    key_padding_mask=padding,
    average_attn_weights=False,
    **mask,
  )


make = lambda: nn.MultiheadAttention(D, H, batch_first=True)  # noqa: E731
record("causal", make(), dict(x=draw(T, 0)), multi_head)
cross = dict(x=draw(T, 1), memory=draw(S, 2))
record("cross", make(), cross, multi_head)

relu = nn.functional.relu
for name, layer, activation in (
  ("encoder pre relu", nn.TransformerEncoderLayer, relu),
  ("encoder post gelu", nn.TransformerEncoderLayer, gelu),
  ("decoder pre gelu", nn.TransformerDecoderLayer, gelu),
  ("decoder post relu", nn.TransformerDecoderLayer, relu),
):
  module = layer(
    d_model=D,
    nhead=H,
    dim_feedforward=F,
    dropout=0.0,
    activation=activation,
    batch_first=True,
    norm_first="pre" in name,
  )
  if "encoder" in name:
    record(name, module, dict(x=draw(S, 3)), lambda module, x: module(x))
  else:
    record(
      name,
      module,
      dict(x=draw(T, 4), memory=draw(S, 5)),
      lambda module, x, memory: module(
        x, memory, tgt_mask=FUTURE, memory_key_padding_mask=HIDDEN
      ),
    )

config = T5Config(
  vocab_size=V,
  d_model=D,
  d_kv=D // H,
  d_ff=F,
  num_layers=L,
  num_heads=H,
  dropout_rate=0.0,
  feed_forward_proj="gated-gelu",
  layer_norm_epsilon=1e-6,
)
tokens = torch.Generator().manual_seed(6)
record(
  "t5",
  T5Model(config),
  dict(
    sources=torch.randint(0, V, (B, S), generator=tokens),
    targets=torch.randint(0, V, (B, T), generator=tokens),
  ),
  lambda module, sources, targets: (
    module(
      input_ids=sources,
      attention_mask=(~HIDDEN).int(),
      decoder_input_ids=targets,
    ).last_hidden_state
  ),
)
distances = torch.arange(-200, 201)
for bidirectional in (False, True):
  arrays[f"buckets/{'both sides' if bidirectional else 'causal'}"] = (
    T5Attention._relative_position_bucket(-distances, bidirectional, 32, 128)
  )

arrays = {name: leaf.detach().numpy() for name, leaf in arrays.items()}
np.savez_compressed(Path(__file__).parent / "transformers.npz", **arrays)
