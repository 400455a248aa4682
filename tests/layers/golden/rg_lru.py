# SPDX-License-Identifier: Apache-2.0
"""Write rg_lru.npz: a recurrent block, and its RG-LRU over several documents.

Made with transformers 5.23 and torch 2.13.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import RecurrentGemmaConfig
from transformers.models.recurrent_gemma import modeling_recurrent_gemma

B, T, D, R, HEADS = 2, 6, 6, 8, 2

torch.manual_seed(0)
config = RecurrentGemmaConfig(
  hidden_size=D, lru_width=R, num_attention_heads=HEADS, conv1d_width=4
)
block = modeling_recurrent_gemma.RecurrentGemmaRecurrentBlock(config, 0)
for parameter in block.parameters():
  torch.nn.init.normal_(parameter, std=0.5)
x, z = torch.randn(B, T, D), torch.randn(B, T, R)
y, _ = block(x, torch.arange(T).expand(B, T), None, use_cache=False)
positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 0]])
h = block.rg_lru(z, positions)
arrays = dict(block.named_parameters())
arrays |= dict(x=x, y=y, z=z, h=h, resets=positions == 0)
np.savez_compressed(
  Path(__file__).with_suffix(".npz"),
  **{name: array.detach().numpy() for name, array in arrays.items()},
)
