# SPDX-License-Identifier: Apache-2.0
"""Choices about the next token, as functions from logits to logits.

They compose in the order of this table, from left to right in a `Chain`; it is
that of transformers. A model's scores are changed first, then tokens are ruled
out by what the text holds, and what is left is made sharper and truncated.

    1  never         Ban
    2  always        Automaton
    3  others' say   Expert, Classifier
    4  scores        LogitBias, RepetitionPenalty, CountPenalty
    5  what came     NoRepeatNgrams, BadWords, MinLength
    6  what must     Forced, which overrules all before it, constraints too
    7  temperature   Temperature or Greedy
    8  tail          TopK, TopP, MinP, Typical, Epsilon, Eta
    9  surprise      Mirostat, which must know what is drawn from

So penalties mean the same at each temperature, and each truncation sees what
the one before it left. None leaves a row without a token to draw: the most
likely one stays, but what `Ban` names never comes.
"""

from lmjax.decoding.filters.automaton import Automaton
from lmjax.decoding.filters.bans import BadWords, Ban, NoRepeatNgrams
from lmjax.decoding.filters.beginning import Forced, MinLength
from lmjax.decoding.filters.bias import LogitBias
from lmjax.decoding.filters.classifier import Classifier
from lmjax.decoding.filters.expert import Expert
from lmjax.decoding.filters.filter import Chain, Filter, Prompt, chain
from lmjax.decoding.filters.mirostat import Mirostat
from lmjax.decoding.filters.penalties import CountPenalty, RepetitionPenalty
from lmjax.decoding.filters.temperature import Greedy, Temperature
from lmjax.decoding.filters.truncation import (
  Epsilon,
  Eta,
  MinP,
  TopK,
  TopP,
  Typical,
)

__all__ = (
  "Automaton",
  "BadWords",
  "Ban",
  "Chain",
  "Classifier",
  "CountPenalty",
  "Epsilon",
  "Eta",
  "Expert",
  "Filter",
  "Forced",
  "Greedy",
  "LogitBias",
  "MinLength",
  "MinP",
  "Mirostat",
  "NoRepeatNgrams",
  "Prompt",
  "RepetitionPenalty",
  "Temperature",
  "TopK",
  "TopP",
  "Typical",
  "chain",
)
