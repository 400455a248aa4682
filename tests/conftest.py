# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices for all tests, and the smallest trainable configs.

Most of the time of the tests is compilation, and most of that is optimization,
which they do not need: without it they take a third of the time, and a fourth
of the memory mappings, of which Linux allows a process 65,530. The flags are
added to XLA_FLAGS unless it sets them itself; for example,
XLA_FLAGS=--xla_cpu_max_isa=AVX2 tests another instruction set, and
XLA_FLAGS=--xla_backend_optimization_level=3 the optimized programs.
"""

import os

_FLAGS = dict(
  xla_backend_optimization_level="0",
  xla_cpu_parallel_codegen_split_count="1",
  xla_backend_extra_options="xla_cpu_disable_new_fusion_emitters",
)
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
  [_given, *(f"--{k}={v}" for k, v in _FLAGS.items() if k not in _given)]
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

from lmjax import platform  # noqa: E402
from lmjax.config import defaults  # noqa: E402
from lmjax.task_specs import TASK_SPECS  # noqa: E402

platform.start()

# Model → its smallest sizes.
TINY = {
  "lstm": dict(num_layers=1, width=16),
  "gru": dict(num_layers=1, width=16),
  "rnn": dict(num_layers=1, width=16),
  "min_gru": dict(num_layers=1, width=16),
  "min_lstm": dict(num_layers=1, width=16),
  "rg_lru": dict(num_layers=1, width=16),
  "xlstm": dict(num_layers=2, width=16, blocks="ms"),
  "gated_convolution": dict(num_layers=2, width=16),
  "transformer": dict(num_layers=2, num_heads=2, width=16),
  "transformer_xl": dict(num_layers=2, num_heads=2, width=16),
  "encoder": dict(num_layers=2, num_heads=2, width=16),
  "encoder_decoder": dict(num_layers=2, num_heads=2, width=16),
  "word_vectors": dict(width=16),
  "recurrent_encoder": dict(width=16),
  "recurrent_seq2seq": dict(width=16, embedding_width=8),
  "text_cnn": dict(width=16, embedding_width=16),
  "bag_of_ngrams": dict(width=16, num_buckets=64),
}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
  """Name a folder in which what is read of the standard library is kept."""
  return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_config(cache_dir):
  """Make tiny configs: tiny_config("lstm", **{"train.num_steps": 3})."""

  def make(model: str, **changes):
    config = defaults.get_config(model=model, task=changes.get("task", ""))
    config.model.update(TINY.get(model, {}))
    if TASK_SPECS[config.task].has_records:
      config.data.cache_dir = cache_dir
    config.data.seq_len = 8
    config.data.batch_size = 8
    config.optim.warmup_steps = 2
    config.parallel.num_devices = 1
    config.train.num_steps = 4
    config.train.log_every = 2
    config.train.eval_every = 4
    config.train.eval_batches = 2
    config.train.preview_every = 0
    config.train.checkpoint_every = 4
    if model == "ngram":
      config.train.num_steps = 1
    config.update_from_flattened_dict(changes)
    return config

  return make


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
  """Write a small corpus with a file for each split."""
  folder = tmp_path_factory.mktemp("text")
  lines = [f"{n} squared is {n * n}, and that is all.\n" for n in range(400)]
  (folder / "train.txt").write_text("".join(lines[:300]))
  (folder / "valid.txt").write_text("".join(lines[300:350]))
  (folder / "test.txt").write_text("".join(lines[350:]))
  return folder
