# SPDX-License-Identifier: Apache-2.0
"""Text that gives a tokenizer a vocabulary of exactly the size asked for."""

import random
from collections.abc import Sequence
from pathlib import Path

NUM_SPECIALS = 4  # <pad>, <unk>, <bos>, <eos>
NUM_TOKENS = 300_000


def units(tokenizer: str, vocab_size: int) -> list[str]:
  """List the words or characters of a vocabulary, most frequent first."""
  number = vocab_size - NUM_SPECIALS
  if tokenizer == "character":
    return [chr(ord("!") + index) for index in range(number)]
  return [f"w{index:05}" for index in range(number)]


def draw(
  tokenizer: str, names: Sequence[str], count: int, seed: int = 0
) -> str:
  """Write text: each name once, then names by Zipf's law.

  Args:
    tokenizer: "word" puts spaces between names, "character" does not.
    names: words or characters.
    count: how many of them.
    seed: seed of the sample.
  """
  generator = random.Random(seed)
  weights = [1.0 / (rank + 3) for rank in range(len(names))]
  sampled = list(names) + generator.choices(names, weights, k=count)
  generator.shuffle(sampled)
  return (" " if tokenizer == "word" else "").join(sampled)


def write(folder: Path, tokenizer: str, vocab_size: int) -> Path:
  """Write a corpus into a folder of its own, unless it is there.

  Returns:
    The folder, which holds train.txt.
  """
  corpus = folder / f"{tokenizer}_{vocab_size}"
  if not corpus.exists():
    names = units(tokenizer, vocab_size)
    corpus.mkdir(parents=True)
    text = draw(tokenizer, names, NUM_TOKENS)
    (corpus / "train.txt").write_text(text, encoding="utf-8")
  return corpus


def prompt(tokenizer: str, vocab_size: int, length: int) -> str:
  """Write a prompt of some tokens."""
  names = units(tokenizer, vocab_size)[:length]
  return (" " if tokenizer == "word" else "").join(names)
