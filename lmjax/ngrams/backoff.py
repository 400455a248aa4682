# SPDX-License-Identifier: Apache-2.0
"""Back-off models: tables of n-grams, and the rule that reads them.

A gram in the tables has its log-probability. One that is not there has that of
its suffix plus the weight of its context, its parent, which is 0 where the
tables do not have the context either (Katz 1987).

With a gram the tables have its parent and its suffix.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lmjax.ngrams.grams import Grams


@dataclasses.dataclass(frozen=True)
class Backoff:
  """One order of a back-off model, in natural logarithms.

  Attributes:
    grams: which grams there are; in order 1 all tokens of the vocabulary.
    log_probs: of the last token of each given the others, float64 [N].
    log_weights: what backing off from each as a context adds, float64 [N]; 0
      for those that have no children, such as all of the highest order.
  """

  grams: Grams
  log_probs: np.ndarray
  log_weights: np.ndarray


def score(
  orders: Sequence[Backoff],
  tokens: np.ndarray,
  document_starts: np.ndarray | Sequence[int] = (0,),
) -> np.ndarray:
  """Score each token of a text, given those before it in its document.

  Args:
    orders: the model.
    tokens: integers [N].
    document_starts: positions of the first tokens of documents, whose
      context is empty. By default all is one document.

  Returns:
    The log-probability of each token, float64 [N].
  """
  tokens = np.asarray(tokens, np.int64)
  starts = np.asarray(document_starts)
  begins = np.zeros(len(tokens), bool)
  begins[starts[starts < len(tokens)]] = True
  places = tokens  # of the gram of order k that ends at each token, or −1
  log_probs = orders[0].log_probs[tokens]
  for shorter, longer in zip(orders, orders[1:], strict=False):
    contexts = np.append(-1, places[:-1])
    contexts[begins] = -1
    places = longer.grams.find(contexts, tokens)
    seen = np.append(longer.log_probs, 0.0)[places]
    weights = np.append(shorter.log_weights, 0.0)[contexts]
    log_probs = np.where(places >= 0, seen, log_probs + weights)
  return log_probs
