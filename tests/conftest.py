# SPDX-License-Identifier: Apache-2.0
"""Eight virtual devices for all tests, and the smallest configs that train."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

from configs import base  # noqa: E402
from lmjax import platform  # noqa: E402

platform.start()


@pytest.fixture(scope="session")
def tiny_config():
  """Make tiny configs: tiny_config("lstm", **{"train.num_steps": 3})."""

  def make(model: str, **changes):
    config = base.get_config(model=model)
    if model == "lstm":
      config.model.num_layers = 1
      config.model.width = 16
    elif model == "word_vectors":
      config.model.width = 16
    else:
      config.model.num_layers = 2
      config.model.num_heads = 2
      config.model.width = 16
    config.data.window = 8
    config.data.batch_size = 8
    config.optim.warmup_steps = 2
    config.parallel.num_devices = 1
    config.train.num_steps = 4
    config.train.log_every = 2
    config.train.eval_every = 4
    config.train.eval_batches = 2
    config.train.sample_every = 0
    config.train.checkpoint_every = 4
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
