# SPDX-License-Identifier: Apache-2.0
"""Write logits_processors.npz: outputs of the processors of transformers.

Run this file with torch 2.13 and transformers 5.23. Arrays are the logits, the
text before them, and one output per case of
tests/decoding/test_logits_processor_parity.py.
"""

from pathlib import Path

import numpy as np
import torch
from transformers.generation import logits_process as hf

B, T, V = 3, 14, 37
STOPS, PROMPT = [2, 5], 10  # the last four tokens of each text were drawn

CASES = {
  "temperature": hf.TemperatureLogitsWarper(0.7),
  "top_k": hf.TopKLogitsWarper(5),
  "top_p": hf.TopPLogitsWarper(0.85),
  "min_p": hf.MinPLogitsWarper(0.07),
  "typical_wide": hf.TypicalLogitsWarper(0.9),
  "typical_narrow": hf.TypicalLogitsWarper(0.2),
  "epsilon": hf.EpsilonLogitsWarper(0.02),
  "epsilon_high": hf.EpsilonLogitsWarper(0.9),
  "eta": hf.EtaLogitsWarper(0.05),
  "eta_high": hf.EtaLogitsWarper(0.6),
  "repetition": hf.RepetitionPenaltyLogitsProcessor(1.3),
  "repetition_below_one": hf.RepetitionPenaltyLogitsProcessor(0.6),
  **{
    f"no_repeat_{size}": hf.NoRepeatNGramLogitsProcessor(size)
    for size in (1, 2, 3)
  },
  "min_length_short": hf.MinNewTokensLengthLogitsProcessor(PROMPT, 5, STOPS),
  "min_length_reached": hf.MinNewTokensLengthLogitsProcessor(PROMPT, 4, STOPS),
  "logit_bias": hf.SequenceBiasLogitsProcessor({(3,): 2.5, (30,): -4.0}),
  "composed": hf.LogitsProcessorList(
    [
      hf.SequenceBiasLogitsProcessor({(3,): 2.5, (30,): -4.0}),
      hf.RepetitionPenaltyLogitsProcessor(1.3),
      hf.NoRepeatNGramLogitsProcessor(2),
      hf.MinNewTokensLengthLogitsProcessor(PROMPT, 5, STOPS),
      hf.TemperatureLogitsWarper(0.7),
      hf.TopKLogitsWarper(20),
      hf.TopPLogitsWarper(0.85),
      hf.MinPLogitsWarper(0.07),
      hf.TypicalLogitsWarper(0.9),
      hf.EpsilonLogitsWarper(0.02),
      hf.EtaLogitsWarper(0.05),
    ]
  ),
}

rng = np.random.default_rng(0)
text = rng.integers(0, 4, (B, T))  # few tokens, so that many come again
logits = (2 * rng.normal(size=(B, V))).astype(np.float32)
logits[1, [4, 9, 20]] = -np.inf
logits[2, int(text[2, -1])] = 3.0  # likely, and it has just come
words = [[7], [*text[0, -2:].tolist(), 11], [*text[1, -3:].tolist(), 12]]
words += [[int(text[2, -1]), int(text[2, -1])], [36, 36, 36, 36]]
CASES["bad_words"] = hf.NoBadWordsLogitsProcessor(words)

arrays = {"logits": logits, "text": text.astype(np.int32)}
arrays["words"] = np.array(
  [[-1] * (4 - len(word)) + word for word in words], np.int32
)
for name, process in CASES.items():
  arrays[name] = process(
    torch.tensor(text), torch.tensor(logits).clone()
  ).numpy()
np.savez_compressed(Path(__file__).parent / "logits_processors.npz", **arrays)
