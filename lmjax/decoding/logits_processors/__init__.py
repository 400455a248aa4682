# SPDX-License-Identifier: Apache-2.0
"""Logits processors: functions from logits to logits.

They compose in the order of this table, from left to right in a `Chain`, which
is the order of transformers: scores of the model are changed first, then tokens
are excluded because of the text so far, and the rest is sharpened and
truncated.

    1  never generated    SuppressTokens
    2  constraints        Automaton
    3  guidance           Expert, Classifier
    4  scores             LogitBias, RepetitionPenalty, CountPenalty
    5  the text so far    NoRepeatNgrams, BadWords, MinLength
    6  forced tokens      ForcedPrefix, which overrides all above
    7  temperature        Temperature or Greedy
    8  truncation         TopK, TopP, MinP, Typical, Epsilon, Eta
    9  target surprise    Mirostat, which needs the final distribution

In this order, penalties have the same effect at each temperature, and each
truncation is applied to the result of the one before it. No processor leaves a
row without a token: the most likely token stays, except that tokens of
`SuppressTokens` are never generated.
"""

from lmjax.decoding.logits_processors.automaton import Automaton
from lmjax.decoding.logits_processors.banned_tokens import (
  BadWords,
  NoRepeatNgrams,
  SuppressTokens,
)
from lmjax.decoding.logits_processors.classifier import Classifier
from lmjax.decoding.logits_processors.expert import Expert
from lmjax.decoding.logits_processors.forced_tokens import (
  ForcedPrefix,
  MinLength,
)
from lmjax.decoding.logits_processors.logit_bias import LogitBias
from lmjax.decoding.logits_processors.logits_processor import (
  Chain,
  LogitsProcessor,
  Prompt,
  chain,
)
from lmjax.decoding.logits_processors.mirostat import Mirostat
from lmjax.decoding.logits_processors.penalties import (
  CountPenalty,
  RepetitionPenalty,
)
from lmjax.decoding.logits_processors.temperature import Greedy, Temperature
from lmjax.decoding.logits_processors.truncation import (
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
  "SuppressTokens",
  "Chain",
  "Classifier",
  "CountPenalty",
  "Epsilon",
  "Eta",
  "Expert",
  "LogitsProcessor",
  "ForcedPrefix",
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
