# SPDX-License-Identifier: Apache-2.0
"""Choices about the next token, as functions from logits to logits.

The usual order is bans, temperature, top-k, top-p.
"""

from lmjax.decoding.filters.bans import Ban
from lmjax.decoding.filters.filter import Chain, Filter, Prompt, chain
from lmjax.decoding.filters.temperature import Greedy, Temperature
from lmjax.decoding.filters.truncation import TopK, TopP

__all__ = (
  "Ban",
  "Chain",
  "Filter",
  "Greedy",
  "Prompt",
  "Temperature",
  "TopK",
  "TopP",
  "chain",
)
