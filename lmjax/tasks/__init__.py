# SPDX-License-Identifier: Apache-2.0
"""What is learned, by name; to add a task, write its file and a line here.

What its batches hold is named in lmjax/data/objectives/__init__.py.
"""

from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.tasks.masked_lm import MaskedLM
from lmjax.tasks.seq2seq import Seq2Seq

TASKS = {
  "language_modeling": LanguageModeling,
  "prefix_lm": LanguageModeling,
  "fill_in_the_middle": LanguageModeling,
  "masked_lm": MaskedLM,
  "span_corruption": Seq2Seq,
}
# Task → the kind of model that learns it; see LanguageModel.
KINDS = {
  "language_modeling": "decoder",
  "prefix_lm": "prefix_decoder",
  "fill_in_the_middle": "decoder",
  "masked_lm": "encoder",
  "span_corruption": "encoder_decoder",
}
