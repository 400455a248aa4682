# SPDX-License-Identifier: Apache-2.0
"""Configs of small runs on tables."""

from lmjax.config import defaults


def table_config(
  path,
  model="recurrent_encoder",
  task="classification",
  *,
  text="0",
  label="1",
  **changes,
):
  """Return a config for a table of tab-separated text.

  Args:
    path: the table, or a folder of tables.
    model: the model family.
    task: the task.
    text: column of the text.
    label: column of the label.
    **changes: config values by dotted key.
  """
  config = defaults.get_config(model=model, task=task)
  config.data.update(dict(source="tsv", path=str(path)))
  config.data.columns.update(dict(text=text, label=label))
  config.parallel.num_devices = 1
  config.train.preview_every = 0
  config.update_from_flattened_dict(changes)
  return config
