# SPDX-License-Identifier: Apache-2.0
"""CBOW vectors of the words in Python's own manual.

Mikolov et al. 2013 (arXiv:1301.3781); as configs/word_skip_gram.py, but each
word is predicted from the mean of its context.
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

word_skip_gram = load_neighbor(__file__, "word_skip_gram.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = word_skip_gram.get_config()
  config.task = "cbow"
  return config
