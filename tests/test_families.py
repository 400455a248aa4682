# SPDX-License-Identifier: Apache-2.0
"""Every family trains, goes on exactly and samples, however it is run.

By default each is run in one of two ways that differ in everything, in turn;
with --slow in all of them.
"""

import itertools
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lmjax.config import defaults
from lmjax.generation.sampling_params import SamplingParams
from lmjax.models import MODELS
from lmjax.run import Run
from lmjax.task_specs import spec_of
from lmjax.training.loop import train
from lmjax.tree import named_leaves

STRATEGIES, ORDERS = ("jit", "pmap"), ("stateless", "stateful")
DTYPES = ("float32", "bfloat16")
IN_TURN = (("jit", "stateful", "float32"), ("pmap", "stateless", "bfloat16"))
# What families that do not go on from a text show, and that have no carry.
SHOW = {
  "encoder": lambda run: run.fill("the ___").texts,
  "encoder_decoder": lambda run: (
    run.fill("the ___", SamplingParams(seed=1)).texts
  ),
  "word_vectors": lambda run: run.vectors.vectors_VD.tolist(),
  "recurrent_seq2seq": lambda run: list(run.predict([{"source": "ninety"}])),
  **dict.fromkeys(
    ("recurrent_encoder", "text_cnn", "bag_of_ngrams"),
    lambda run: list(run.predict([{"text": "Return the list."}])),
  ),
}
NO_DTYPE = {"ngram"}  # families without matmuls


def ways():
  """List (family, strategy, order, dtype) of what there is."""
  for way in itertools.product(MODELS, STRATEGIES, ORDERS, DTYPES):
    family, _, order, dtype = way
    if family in SHOW and order == "stateful":
      continue
    if family in NO_DTYPE and dtype == "bfloat16":
      continue
    turn = list(MODELS).index(family) % 2
    if family in SHOW or family in NO_DTYPE:  # there is but one of the two
      turn = int(family in SHOW)
    marks = () if way[1:] == IN_TURN[turn] else pytest.mark.slow
    yield pytest.param(*way, id=", ".join(way), marks=marks)


def stored(folder, step):
  """Read all that a checkpoint holds, by name."""
  items = ("params", "collections", "training")
  there = [
    i for i in items if (folder / "checkpoints" / str(step) / i).exists()
  ]
  with ocp.CheckpointManager(folder / "checkpoints") as manager:
    arguments = {item: ocp.args.StandardRestore() for item in there}
    restored = manager.restore(step, args=ocp.args.Composite(**arguments))
  leaves = named_leaves({item: restored[item] for item in there})
  return {
    name: jax.random.key_data(leaf)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else leaf
    for name, leaf in leaves.items()
  }


@pytest.mark.parametrize(("family", "strategy", "order", "dtype"), list(ways()))
def test_family(family, strategy, order, dtype, tiny_config, tmp_path):
  changes = {
    "parallel.strategy": strategy,
    "parallel.num_devices": 2,
    "train.num_steps": 2,
    "train.checkpoint_every": 1,
    "train.log_every": 1,
    "train.eval_every": 0,
  }
  if not spec_of(defaults.get_config(family)).has_records:
    changes["data.order"] = order
  if family not in NO_DTYPE:
    changes["model.dtype"] = dtype
  config = tiny_config(family, **changes)
  assert train(config, tmp_path) == 0
  params = SamplingParams(num_tokens=3, seed=1)
  show = SHOW.get(family, lambda run: run.generate("The ", params).text)
  shown = show(Run(tmp_path, "latest"))
  straight = stored(tmp_path, 2)
  first = stored(tmp_path, 1)
  shutil.rmtree(tmp_path / "checkpoints" / "2")
  assert train(config, tmp_path) == 0
  resumed = stored(tmp_path, 2)
  assert straight.keys() == resumed.keys()
  for name, leaf in straight.items():
    np.testing.assert_array_equal(leaf, resumed[name], err_msg=name)
  moved = [
    name
    for name, leaf in straight.items()
    if name.startswith("params/") and not np.array_equal(leaf, first[name])
  ]
  assert moved or family == "ngram"
  assert shown and show(Run(tmp_path, "latest")) == shown
