# SPDX-License-Identifier: Apache-2.0
"""Write what PyTorch's recurrent layers make of random weights.

python tests/ops/golden/make_recurrent.py    # with torch 2.13; not run by tests

Each layer's file has its inputs, state and weights, then outputs and the state
after them, and the gradients of sum(output · cos(output)) plus the sum of the
state's squares, by PyTorch's names.
"""

from pathlib import Path

import numpy as np
import torch

B, T, E, D, P = 2, 5, 3, 4, 2
LAYERS = {
  "rnn": torch.nn.RNN(E, D, batch_first=True),
  "relu_rnn": torch.nn.RNN(E, D, nonlinearity="relu", batch_first=True),
  "gru": torch.nn.GRU(E, D, batch_first=True),
  "lstm": torch.nn.LSTM(E, D, batch_first=True),
  "projected_lstm": torch.nn.LSTM(E, D, proj_size=P, batch_first=True),
}


def run(layer: torch.nn.Module) -> dict[str, torch.Tensor]:
  """Run one layer forward and back."""
  width = layer.proj_size or D
  leaves = dict(layer.named_parameters())
  for leaf in leaves.values():
    torch.nn.init.normal_(leaf)
  leaves["x"] = torch.randn(B, T, E, requires_grad=True)
  leaves["h"] = torch.randn(1, B, width, requires_grad=True)
  state = leaves["h"]
  if isinstance(layer, torch.nn.LSTM):
    leaves["c"] = torch.randn(1, B, D, requires_grad=True)
    state = (state, leaves["c"])
  output, last = layer(leaves["x"], state)
  last = last if isinstance(last, tuple) else (last,)
  loss = (output * output.cos()).sum() + sum(s.square().sum() for s in last)
  loss.backward()
  results = {**leaves, "output": output}
  results |= {f"last_{name}": s for name, s in zip("hc", last, strict=False)}
  return results | {f"d_{name}": leaf.grad for name, leaf in leaves.items()}


if __name__ == "__main__":
  torch.manual_seed(0)
  for name, layer in LAYERS.items():
    arrays = {key: value.detach().numpy() for key, value in run(layer).items()}
    np.savez_compressed(Path(__file__).with_name(f"{name}.npz"), **arrays)
