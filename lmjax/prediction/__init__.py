# SPDX-License-Identifier: Apache-2.0
"""What is said of a record, by task; to add a task, write its file and a line.

A prediction is a frozen dataclass that keeps the contract of prediction.py; its
fields are filled by their names, as those of a task.
"""

from lmjax.prediction.classification import ClassPrediction
from lmjax.prediction.matching import MatchPrediction
from lmjax.prediction.seq2seq import TextPrediction
from lmjax.prediction.tagging import TagPrediction

PREDICTIONS = {
  "classification": ClassPrediction,
  "tagging": TagPrediction,
  "matching": MatchPrediction,
  "seq2seq": TextPrediction,
}
