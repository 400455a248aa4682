# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself at its start."""

import math

import jax
import numpy as np

from lmjax.config import difference_from_base
from lmjax.experiment import Experiment
from lmjax.tree import named_leaves
from lmjax.types import PyTree


def parameter_table(params: PyTree) -> str:
  """List parameters by path, shape, type and number, and their sum."""
  leaves = named_leaves(params)
  sizes = {name: math.prod(leaf.shape) for name, leaf in leaves.items()}
  rows = [
    (name, " × ".join(map(str, leaf.shape)), leaf.dtype.name, sizes[name])
    for name, leaf in leaves.items()
  ]
  rows.append(("total", "", "", sum(sizes.values())))
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  return "\n".join(
    f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype:<{widths[2]}}"
    f"  {size:>13,}"
    for name, shape, dtype, size in rows
  )


def entropy(counts: np.ndarray) -> float:
  """Compute the entropy, in nats, of what was counted.

  It is the loss of the best model that knows how frequent each token is and
  nothing else.
  """
  share = counts[counts > 0] / counts.sum()
  return float(-(share * np.log(share)).sum())


def overview(experiment: Experiment, params: PyTree, num_devices: int) -> str:
  """Describe config, corpus, devices and parameters."""
  stream = experiment.stream("train")
  changes = difference_from_base(experiment.config)
  config = "\n".join(f"  {key} = {value}" for key, value in changes.items())
  data = experiment.config.data
  with_resets = data.reset_at_documents or data.order == "stateful"
  choices = experiment.model.choices(with_resets)
  chosen = ", ".join(f"{key} = {value}" for key, value in choices.items())
  coverage = experiment.folder.load_corpus().get("pretrained")
  pretrained = coverage and (
    f"pretrained vectors: of {coverage['types']:.1%} of the vocabulary and "
    f"{coverage['tokens']:.1%} of the training text\n"
  )
  kind = jax.devices()[0].device_kind
  split = "valid" if experiment.config.train.eval_every else "train"
  counts = experiment.stream(split).counts(experiment.tokenizer.vocab_size)
  return (
    f"different from base.py:\n{config}\n"
    f"parameters:\n{parameter_table(params)}\n"
    f"training text: {stream.num_tokens:,} tokens in "
    f"{stream.num_documents:,} documents, vocabulary "
    f"{experiment.tokenizer.vocab_size:,}\n"
    f"unigram entropy of {split}: {entropy(counts):.4f} nats a token\n"
    f"{pretrained or ''}"
    f"chosen: {chosen}\n"
    f"devices: {num_devices} × {kind}"
  )
