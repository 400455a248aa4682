# SPDX-License-Identifier: Apache-2.0
"""What rewrites rows of text before they are learned from, by task.

To add one, write its file and a line here; tasks that are not here take rows
as they are read.
"""

from ml_collections import ConfigDict

from lmjax.data.text.objectives import (
  control_codes,
  fill_in_the_middle,
  masking,
  prefix,
  span_corruption,
)
from lmjax.data.text.objectives.objective import Objective

# Task → builder: (config) → Objective, or a UsageError.
OBJECTIVES = {
  "prefix_lm": prefix.build,
  "fill_in_the_middle": fill_in_the_middle.build,
  "control_codes": control_codes.build,
  "masked_lm": masking.build,
  "span_corruption": span_corruption.build,
}


def make_objective(config: ConfigDict) -> Objective:
  """Make the objective of a config's task.

  Raises:
    UsageError: if a setting leaves it no room.
  """
  if config.task in OBJECTIVES:
    return OBJECTIVES[config.task](config)
  return Objective(config.data.seq_len)
