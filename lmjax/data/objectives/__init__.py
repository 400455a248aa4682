# SPDX-License-Identifier: Apache-2.0
"""What becomes of rows of text before they are learned from, by task.

To add one, write its file and a line here and in lmjax/tasks/__init__.py.
"""

from lmjax.data.objectives import (
  fill_in_the_middle,
  masking,
  prefix,
  span_corruption,
)
from lmjax.data.objectives.objective import next_token

# Task → builder: (config) → Objective, or a UsageError.
OBJECTIVES = {
  "language_modeling": next_token,
  "prefix_lm": prefix.build,
  "fill_in_the_middle": fill_in_the_middle.build,
  "masked_lm": masking.build,
  "span_corruption": span_corruption.build,
}
