# SPDX-License-Identifier: Apache-2.0
"""Write mlstm.npz: the recurrence over a memory that is not empty.

Made with transformers 5.23 and torch 2.13.
"""

from pathlib import Path

import numpy as np
import torch
from transformers.models.xlstm import modeling_xlstm

B, H, T, K = 2, 3, 6, 4

torch.manual_seed(0)
arrays = {name: torch.randn(B, H, T, K) for name in ("query", "key", "value")}
arrays |= {name: 3 * torch.randn(B, H, T) for name in ("igate", "fgate")}
initial = dict(
  c_initial=torch.randn(B, H, K, K),
  n_initial=torch.randn(B, H, K),
  m_initial=torch.randn(B, H, 1),
)
h, last = modeling_xlstm.mlstm_recurrent_sequence_native(
  **arrays, **initial, return_last_states=True
)
arrays |= initial | dict(h=h, c=last[0], n=last[1], m=last[2])
np.savez_compressed(
  Path(__file__).with_suffix(".npz"),
  **{name: array.numpy() for name, array in arrays.items()},
)
