# SPDX-License-Identifier: Apache-2.0
"""Language models as PyTorch's users write them, with weights of lmjax."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.parameters import Parameters, block
from benchmarks.workload import Workload

State = tuple[Tensor, Tensor]


def make_model(work: Workload, parameters: Parameters | None) -> nn.Module:
  """Build the model of some work, with given weights if there are any."""
  model = {"lstm": LSTM, "transformer": GPT}[work.model](work)
  if parameters:
    with torch.no_grad():
      model.load(parameters)
  return model


def _set(parameter: Tensor, value: np.ndarray) -> None:
  """Write a weight; PyTorch has outputs first where lmjax has inputs."""
  parameter.copy_(torch.from_numpy(np.array(value, np.float32)))


class LSTM(nn.Module):
  """nn.LSTM between an embedding and a linear layer, time first.

  That is PyTorch's default; on a CPU with AMX, `batch_first=True` makes it ten
  times slower in bfloat16.
  """

  def __init__(self, work: Workload):
    super().__init__()
    self.embedding = nn.Embedding(work.vocab_size, work.embedding_width)
    self.lstm = nn.LSTM(work.embedding_width, work.width, work.num_layers)
    self.output = nn.Linear(work.width, work.vocab_size)

  def read(
    self, tokens_TB: Tensor, state: State | None = None
  ) -> tuple[Tensor, State]:
    """Return logits, [T, B, V], and the state after the last token."""
    hidden_TBD, state = self.lstm(self.embedding(tokens_TB), state)
    return self.output(hidden_TBD), state

  def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean loss."""
    logits_TBV, _ = self.read(inputs_BT.T)
    return F.cross_entropy(logits_TBV.flatten(0, 1), targets_BT.T.flatten())

  def load(self, parameters: Parameters) -> None:
    """Take weights of lmjax, whose gates have the same order."""
    _set(self.embedding.weight, parameters["embedding/embedding"])
    for index in range(self.lstm.num_layers):
      names = (
        ("weight_ih", "input_kernel"),
        ("weight_hh", "recurrent_kernel"),
        ("bias_ih", "bias"),
      )
      for theirs, ours in names:
        value = parameters[f"layer_{index}/{ours}"]
        _set(getattr(self.lstm, f"{theirs}_l{index}"), value.T)
      nn.init.zeros_(getattr(self.lstm, f"bias_hh_l{index}"))
    _set(self.output.weight, parameters["output/table"])
    _set(self.output.bias, parameters["output/bias"])


class Block(nn.Module):
  """Attention and feed-forward of nanoGPT, without biases and dropout."""

  def __init__(self, width: int, num_heads: int):
    super().__init__()
    self.num_heads = num_heads
    self.attention_norm = nn.LayerNorm(width, eps=1e-6, bias=False)
    self.query_key_value = nn.Linear(width, 3 * width, bias=False)
    self.out = nn.Linear(width, width, bias=False)
    self.feed_forward_norm = nn.LayerNorm(width, eps=1e-6, bias=False)
    self.up = nn.Linear(width, 4 * width, bias=False)
    self.down = nn.Linear(4 * width, width, bias=False)

  def forward(self, x_BTD: Tensor) -> Tensor:
    """Transform [B, T, D]."""
    batch, time, width = x_BTD.shape
    projected = self.query_key_value(self.attention_norm(x_BTD))
    query_BHTK, key_BHTK, value_BHTK = (
      part.view(batch, time, self.num_heads, -1).transpose(1, 2)
      for part in projected.split(width, dim=2)
    )
    attended_BHTK = F.scaled_dot_product_attention(
      query_BHTK, key_BHTK, value_BHTK, is_causal=True
    )
    attended_BTD = attended_BHTK.transpose(1, 2).reshape(batch, time, width)
    x_BTD = x_BTD + self.out(attended_BTD)
    inner_BTF = self.up(self.feed_forward_norm(x_BTD))
    return x_BTD + self.down(F.gelu(inner_BTF, approximate="tanh"))

  def load(self, parameters: Parameters) -> None:
    """Take the weights of one block of lmjax."""
    width = self.out.in_features
    heads = [
      parameters[f"attention/{name}/kernel"].reshape(width, width)
      for name in ("query", "key", "value")
    ]
    _set(self.query_key_value.weight, np.concatenate(heads, axis=1).T)
    out = parameters["attention/out/kernel"].reshape(width, width)
    _set(self.out.weight, out.T)
    _set(self.up.weight, parameters["feed_forward/up/kernel"].T)
    _set(self.down.weight, parameters["feed_forward/down/kernel"].T)
    for name in ("attention_norm", "feed_forward_norm"):
      _set(getattr(self, name).weight, parameters[f"{name}/scale"])


class GPT(nn.Module):
  """nanoGPT's model: pre-norm, learned positions, tied embeddings."""

  def __init__(self, work: Workload):
    super().__init__()
    self.embedding = nn.Embedding(work.vocab_size, work.width)
    self.positions = nn.Embedding(work.max_context or work.seq_len, work.width)
    self.blocks = nn.ModuleList(
      Block(work.width, work.num_heads) for _ in range(work.num_layers)
    )
    self.final_norm = nn.LayerNorm(work.width, eps=1e-6, bias=False)
    self.output = nn.Linear(work.width, work.vocab_size, bias=False)
    nn.init.normal_(self.embedding.weight, std=0.02)
    self.output.weight = self.embedding.weight

  def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean loss."""
    index_T = torch.arange(inputs_BT.shape[1], device=inputs_BT.device)
    x_BTD = self.embedding(inputs_BT) + self.positions(index_T)
    for layer in self.blocks:
      x_BTD = layer(x_BTD)
    logits_BTV = self.output(self.final_norm(x_BTD))
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

  def load(self, parameters: Parameters) -> None:
    """Take weights of lmjax."""
    _set(self.embedding.weight, parameters["embedding/embedding"])
    _set(self.positions.weight, parameters["position_embedding/embedding"])
    for index, layer in enumerate(self.blocks):
      layer.load(block(parameters, index))
    _set(self.final_norm.weight, parameters["final_norm/scale"])


def gpt2_weights(parameters: Parameters, num_layers: int) -> dict[str, Tensor]:
  """Name weights of lmjax, biases among them, as transformers' GPT-2 does.

  Its projections have inputs first, as those of lmjax.
  """
  weights = {
    "wte.weight": parameters["embedding/embedding"],
    "wpe.weight": parameters["position_embedding/embedding"],
    **_named("ln_f", parameters, "final_norm"),
  }
  width = parameters["embedding/embedding"].shape[1]
  for index in range(num_layers):
    layer = block(parameters, index)
    for kind, shape in (("kernel", (width, width)), ("bias", (width,))):
      parts = [
        layer[f"attention/{name}/{kind}"].reshape(shape)
        for name in ("query", "key", "value")
      ]
      layer[f"joined/{kind}"] = np.concatenate(parts, axis=-1)
    layer["attention/out/kernel"] = layer["attention/out/kernel"].reshape(
      width, width
    )
    for theirs, ours in (
      ("ln_1", "attention_norm"),
      ("attn.c_attn", "joined"),
      ("attn.c_proj", "attention/out"),
      ("ln_2", "feed_forward_norm"),
      ("mlp.c_fc", "feed_forward/up"),
      ("mlp.c_proj", "feed_forward/down"),
    ):
      weights |= _named(f"h.{index}.{theirs}", layer, ours)
  return {
    f"transformer.{name}": torch.from_numpy(np.array(value, np.float32))
    for name, value in weights.items()
  }


def _named(theirs: str, parameters: Parameters, ours: str) -> Parameters:
  """Rename the weight and the bias of a layer."""
  kind = "scale" if ours.endswith("norm") else "kernel"
  return {
    f"{theirs}.weight": parameters[f"{ours}/{kind}"],
    f"{theirs}.bias": parameters[f"{ours}/bias"],
  }
