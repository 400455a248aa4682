# SPDX-License-Identifier: Apache-2.0
"""What is learned, by name; to add a task, write its file and a line here.

A task is a frozen dataclass that keeps the contract of task.py; its fields are
filled by their names, from what `Experiment.task` offers.
"""

from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.tasks.word_vectors import CBOW, GloVe, SkipGram

TASKS = {
  "language_modeling": LanguageModeling,
  "skip_gram": SkipGram,
  "cbow": CBOW,
  "glove": GloVe,
}
