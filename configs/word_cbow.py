# SPDX-License-Identifier: Apache-2.0
"""CBOW vectors of the words in Python's own manual.

Mikolov et al. 2013 (arXiv:1301.3781); as configs/word_skip_gram.py, but each
word is told by the mean of those around it.
"""

from ml_collections import ConfigDict

from configs import word_skip_gram


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = word_skip_gram.get_config()
  config.task = "cbow"
  return config
