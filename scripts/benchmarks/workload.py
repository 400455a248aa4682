# SPDX-License-Identifier: Apache-2.0
"""What all contenders of a case do, in words that mean the same to each."""

import dataclasses

NUM_TOKENS, PROMPT_LENGTH = 256, 16  # of a generated text
LEARNING_RATE = 1e-3
NUM_COMPARED = 4  # first steps whose losses must agree
NUM_BATCHES = 8  # batches that peers train on, over and over


@dataclasses.dataclass(frozen=True)
class Workload:
  """A language model and what is done with it.

  Attributes:
    kind: train | generate | compile.
    model: lstm | transformer. The LSTM has an output layer of its own with
      biases; the Transformer is GPT-2's, with its embedding table tied and no
      biases unless `use_bias`.
    vocab_size: number of tokens V, the four special ones counted.
    width: width D of a layer.
    num_layers: number of layers L.
    batch_size: rows B of a batch, or texts generated together.
    seq_len: tokens T in a row.
    dtype: float32, or bfloat16 for the matmuls.
    embedding_width: lstm: width E of the embeddings.
    num_heads: transformer: number of heads.
    max_context: transformer: number of positions; 0 for `seq_len`.
    use_bias: transformer: whether projections and norms have biases.
    top_k: generate: sample from this many most likely tokens; 1 for
      greedy search, 0 for all.
  """

  kind: str
  model: str
  vocab_size: int
  width: int
  num_layers: int
  batch_size: int
  seq_len: int
  dtype: str = "float32"
  embedding_width: int = 0
  num_heads: int = 0
  max_context: int = 0
  use_bias: bool = False
  top_k: int = 0

  def __str__(self) -> str:
    """Describe it as a table has it."""
    name = {"lstm": "LSTM", "transformer": "GPT"}[self.model]
    parts = [f"{name} {self.num_layers}×{self.width}"]
    if self.embedding_width != self.width and self.model == "lstm":
      parts.append(f"embedding {self.embedding_width}")
    parts.append(f"vocabulary {self.vocab_size:,}")
    parts.append(f"B {self.batch_size}")
    if self.kind == "generate":
      parts += [self.choice] if self.top_k else []
      return ", ".join([f"generate {NUM_TOKENS} tokens", *parts, self.dtype])
    parts.append(f"T {self.seq_len}")
    what = {"train": "train step", "compile": "compilation"}[self.kind]
    return ", ".join([*parts, what, self.dtype])

  @property
  def choice(self) -> str:
    """Say how tokens are chosen, of fewer than all."""
    return "greedy" if self.top_k == 1 else f"top-k {self.top_k}"
