# SPDX-License-Identifier: Apache-2.0
"""GloVe vectors of the words in Python's own manual.

Pennington et al. 2014. A batch holds 8,192 entries of the matrix of counts. The
validation text is too short for evaluation: its pairs are those that happened
to meet.
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

word_skip_gram = load_neighbor(__file__, "word_skip_gram.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = word_skip_gram.get_config()
  config.task = "glove"
  config.word_vectors.context_size = 10
  config.word_vectors.x_max = 10.0
  config.train.eval_every = 0
  return config
