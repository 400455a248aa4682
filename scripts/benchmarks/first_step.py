# SPDX-License-Identifier: Apache-2.0
"""Import torch, build nanoGPT's small model, and make one eager train step."""

import torch

from benchmarks.torch_models import make_model
from benchmarks.workload import LEARNING_RATE, Workload

WORK = Workload(
  kind="train",
  model="transformer",
  vocab_size=65,
  width=128,
  num_layers=4,
  batch_size=12,
  seq_len=64,
  num_heads=4,
)


def main() -> None:
  """Make the step and say so."""
  device = "cuda" if torch.cuda.is_available() else "cpu"
  model = make_model(WORK, None).to(device)
  optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
  shape = (WORK.batch_size, WORK.seq_len + 1)
  tokens_BT = torch.randint(WORK.vocab_size, shape, device=device)
  loss = model(tokens_BT[:, :-1], tokens_BT[:, 1:])
  loss.backward()
  optimizer.step()
  print(f"step 1 loss {loss.item():.3f}", flush=True)


if __name__ == "__main__":
  main()
