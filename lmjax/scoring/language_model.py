# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of texts under a language model, token by token."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from lmjax.data.text.stream import find_control_code
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.requests import bucket, bucket_rows
from lmjax.interpretability.attention import AttentionMap, read_maps
from lmjax.interpretability.spans import Span, readable, spans
from lmjax.metrics.sums import perplexity
from lmjax.types import Array, PyTree

_ROWS = 16  # texts, or sequences of one, scored at a time


class Score(NamedTuple):
  """The log-probabilities of a text.

  Attributes:
    text: the text.
    tokens: its tokens.
    log_probs: log-probability of each token in nats given those before it,
      float32 [T]. The first is NaN if there is nothing before it.
    num_sequences: number of sequences that were scored independently; above 1
      if the text is longer than the model's context.
  """

  text: str
  tokens: list[int]
  log_probs: np.ndarray
  num_sequences: int

  @property
  def num_scored(self) -> int:
    """Number of tokens with a log-probability."""
    return int((~np.isnan(self.log_probs)).sum())

  @property
  def log_prob(self) -> float:
    """Log-probability of the text, in nats."""
    return float(np.nansum(self.log_probs, dtype=np.float64))

  @property
  def surprisals(self) -> np.ndarray:
    """Surprisal of each token in bits, float32 [T]."""
    return -self.log_probs / np.float32(math.log(2))

  @property
  def nats(self) -> float:
    """Cross-entropy per token in nats; NaN if no token has a score."""
    return -self.log_prob / self.num_scored if self.num_scored else math.nan

  def __str__(self) -> str:
    """Describe it in a line."""
    text = f"{self.num_scored:,} of {len(self.tokens):,} tokens scored"
    if self.num_scored:
      text += (
        f": {self.log_prob:.3f} nats, perplexity {perplexity(self.nats):.4g}, "
        f"{self.nats / math.log(2):.3f} bits a token"
      )
    if self.num_sequences > 1:
      text += f"; read in {self.num_sequences:,} windows, each on its own"
    return text

  def report(self) -> dict[str, Any]:
    """Name what programs read; see lmjax.strict_json."""
    return dict(
      text=self.text,
      log_prob=self.log_prob,
      perplexity=perplexity(self.nats),
      bits_per_token=self.nats / math.log(2),
      num_sequences=self.num_sequences,
      tokens=self.tokens,
      log_probs=self.log_probs.tolist(),
      surprisals=self.surprisals.tolist(),
    )


class Scorer:
  """Score tokens given those before them.

  Lengths are rounded up to few sizes, as those of prompts are.

  Args:
    model: keeps the contract of lmjax.models.
    seq_len: maximum number of tokens of a sequence.
    carries: whether the state is kept from sequence to sequence; else it is
      reset, as in stateless evaluation.
  """

  def __init__(self, model: nn.Module, seq_len: int, carries: bool):
    self._model, self._seq_len, self._carries = model, seq_len, carries
    self._read = jax.jit(self._log_probs)

  def num_sequences(self, num_tokens: int) -> int:
    """Say how many times memory is empty in a text."""
    if self._carries:
      return 1
    return max(-(-(num_tokens - 1) // self._seq_len), 1)

  def __call__(
    self, variables: PyTree, texts: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Score each token of texts but the first.

    Args:
      variables: the model's variables.
      texts: int tokens [T], of any length.

    Returns:
      Log-probabilities in nats, float32 [T − 1] of each.
    """
    parts = [
      (number, part)
      for number, text in enumerate(texts)
      for part in self._split(text)
    ]
    order = sorted(range(len(parts)), key=lambda index: len(parts[index][1]))
    scores = [np.zeros(0, np.float32)] * len(parts)
    for at in range(0, len(order), _ROWS):
      group = order[at : at + _ROWS]
      rows = self._score(variables, [parts[index][1] for index in group])
      for index, row in zip(group, rows, strict=True):
        scores[index] = row
    by_text = [[np.zeros(0, np.float32)] for _ in texts]
    for (number, _), row in zip(parts, scores, strict=True):
      by_text[number].append(row)
    return list(map(np.concatenate, by_text))

  def _split(self, text: np.ndarray) -> list[np.ndarray]:
    """Split a text where the state is reset; adjacent parts share a token."""
    size = len(text) if self._carries else self._seq_len
    return [text[i : i + size + 1] for i in range(0, len(text) - 1, size)]

  def _score(
    self, variables: PyTree, rows: list[np.ndarray]
  ) -> list[np.ndarray]:
    """Score rows together, window by window."""
    longest = max(map(len, rows)) - 1
    seq_len = min(bucket(longest), self._seq_len)
    starts = range(0, longest, seq_len)
    batch_size = bucket_rows(len(rows))
    # Any token pads: the model is causal, and scores of padding are dropped.
    tokens_BT = np.zeros((batch_size, len(starts) * seq_len + 1), np.int32)
    for number, row in enumerate(rows):
      tokens_BT[number, : len(row)] = row
    carry = None
    if len(starts) > 1:
      max_context = self._model.max_context or 0
      carry = self._model.initial_carry(batch_size, max_context)
    scores = []
    for start in starts:
      here_BT = tokens_BT[:, start : start + seq_len + 1]
      log_probs_BT, carry = self._read(variables, here_BT, carry)
      scores.append(np.asarray(log_probs_BT))
    scores_BT = np.concatenate(scores, axis=1)
    return [
      scores_B[: len(row) - 1]
      for scores_B, row in zip(scores_BT, rows, strict=False)
    ]

  def _log_probs(
    self, variables: PyTree, tokens_BT: Array, carry: PyTree
  ) -> tuple[Array, PyTree]:
    hidden, carry = self._model.apply(variables, tokens_BT[:, :-1], carry)
    log_probs_BT = self._model.apply(
      variables, hidden, tokens_BT[:, 1:], method="log_probs"
    )
    return log_probs_BT, carry


class TextScorer:
  """Score texts with a language model.

  Args:
    model: keeps the contract of lmjax.models.
    tokenizer: the one that it was trained with.
    seq_len: see Scorer.
    carries: see Scorer.
    starts_documents: whether texts are preceded by `<eos>`, as documents are in
      training if they reset the state; else the first token has no score unless
      a control code precedes it.
  """

  def __init__(
    self,
    model: nn.Module,
    tokenizer: Tokenizer,
    seq_len: int,
    carries: bool,
    starts_documents: bool = False,
  ):
    self.tokenizer = tokenizer
    self._model, self._seq_len = model, seq_len
    self._starts_documents = starts_documents
    self._scorer = Scorer(model, seq_len, carries)

  def __call__(
    self,
    variables: PyTree,
    texts: Sequence[str],
    control_code: str = "",
    prompt: str = "",
  ) -> list[Score]:
    """Score each token of texts given those before it.

    Args:
      variables: the model's variables.
      texts: any number of them.
      control_code: control code of the texts; empty for none.
      prompt: the text before each of them, which is not scored.

    Raises:
      UsageError: if a text has no token, or the training text had no such code.
    """
    begin = self._prefix(control_code, prompt)
    encoded = [self._encode(text) for text in texts]
    read = [np.array([*begin, *tokens], np.int32) for tokens in encoded]
    found = []
    for text, tokens, log_probs in zip(
      texts, encoded, self._scorer(variables, read), strict=True
    ):
      number = len(tokens)
      known = np.concatenate([np.full(1, np.nan, np.float32), log_probs])
      num_sequences = self._scorer.num_sequences(len(known))
      found.append(Score(text, tokens.tolist(), known[-number:], num_sequences))
    return found

  def spans(self, score: Score) -> list[Span]:
    """Return the text of each token, with surprisals in bits."""
    return spans(self.tokenizer, score.tokens, score.surprisals)

  def attention_maps(
    self,
    variables: PyTree,
    text: str,
    max_tokens: int,
    control_code: str = "",
    prompt: str = "",
  ) -> dict[str, AttentionMap]:
    """Return attention maps of the first tokens, by layer.

    Args:
      variables: the model's variables.
      text: any.
      max_tokens: maximum number of tokens; at most one sequence is used.
      control_code: control code of the text; empty for none.
      prompt: the text before it.
    """
    begin = self._prefix(control_code, prompt)
    every = np.array([*begin, *self._encode(text)], np.int32)
    tokens = every[: min(max_tokens, self._seq_len)]
    is_whole = len(tokens) == len(every)
    shown = readable(self.tokenizer, tokens)
    maps = read_maps(self._model, variables, tokens[None])
    return {k: AttentionMap(shown, shown, x, is_whole) for k, x in maps.items()}

  def _prefix(self, control_code: str, prompt: str) -> list[int]:
    """Return the tokens before a text."""
    begin = [self.tokenizer.eos_id] if self._starts_documents else []
    begin = (
      [*begin, find_control_code(control_code, self.tokenizer)]
      if control_code
      else begin
    )
    return [*begin, *self.tokenizer.encode(prompt)]

  def _encode(self, text: str) -> np.ndarray:
    tokens = self.tokenizer.encode(text)
    if not len(tokens):
      raise UsageError("the text is empty; give some text.")
    return tokens
