# SPDX-License-Identifier: Apache-2.0
"""What is said of a record, by task; to add a task, write its file and a line.

A prediction is a frozen dataclass that keeps the contract of prediction.py.
"""

from lmjax.predictions.classification import ClassPrediction

PREDICTIONS = {
  "classification": ClassPrediction,
}
