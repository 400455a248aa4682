# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of texts given a prompt or a source."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.generator import ModelBinder
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.interpretability.attention import AttentionMap, read_maps
from lmjax.interpretability.spans import Span, readable, spans
from lmjax.scoring.language_model import Score
from lmjax.types import Array, PyTree

_ROWS = 16  # texts scored at a time


class PairScorer:
  """Score texts after a bidirectional prefix, or target sequences.

  The `<eos>` of a target is scored too: it is part of the model's prediction.

  Args:
    model: keeps the contract of lmjax.models.
    sampler: encodes prompts or sources.
    source_tokenizer: tokenizer of sources; None if there are none.
  """

  def __init__(
    self,
    model: nn.Module,
    sampler: TextSampler,
    source_tokenizer: Tokenizer | None = None,
  ):
    self._model, self._sampler = model, sampler
    self._source_tokenizer = source_tokenizer
    self._has_sources = sampler.reads_sources
    self._score = ContinuationScorer(
      ModelBinder(model, bidirectional_prompt=not self._has_sources),
      sampler.tokenizer.pad_id,
    )

  def __call__(
    self,
    variables: PyTree,
    texts: Sequence[str],
    control_code: str = "",
    prompt: str = "",
  ) -> list[Score]:
    """Score each token of texts given a prompt, or a source, and those before.

    Args:
      variables: the model's variables.
      texts: any number of them.
      control_code: must be empty: these tasks have no control codes.
      prompt: the text before all of them, or their source.

    Raises:
      UsageError: if a text or the source has no token, or either, or a text
        with its prompt, is longer than the model's context.
    """
    params = SamplingParams(control_code=control_code)
    (request,) = self._sampler.requests([prompt], params)
    encoded = [self._encode(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    found = {}
    for at in range(0, len(order), _ROWS):
      group = order[at : at + _ROWS]
      rows = [encoded[index] for index in group]
      scores = self._score(variables, [request] * len(rows), rows)
      for index, log_probs in zip(group, scores, strict=True):
        log_probs_T = np.array(log_probs, np.float32)
        found[index] = Score(texts[index], encoded[index], log_probs_T, 1)
    return [found[index] for index in range(len(texts))]

  def spans(self, score: Score) -> list[Span]:
    """Return a text as it is read, with its surprisals in bits."""
    tokenizer = self._sampler.tokenizer
    *first, last = spans(tokenizer, score.tokens, score.surprisals)
    if self._has_sources:  # its end, which is no text
      last = last._replace(text=" " + tokenizer.names()[tokenizer.eos_id])
    return [*first, last]

  def attention_maps(
    self,
    variables: PyTree,
    text: str,
    max_tokens: int,
    control_code: str = "",
    prompt: str = "",
  ) -> dict[str, AttentionMap]:
    """Return attention maps of the first tokens, over the prompt or source.

    Args:
      variables: the model's variables.
      text: any.
      max_tokens: maximum number of tokens.
      control_code: empty.
      prompt: see `__call__`.
    """
    params = SamplingParams(control_code=control_code)
    (request,) = self._sampler.requests([prompt], params)
    every = [*request.tokens, *self._encode(text)]
    tokens = every[:max_tokens]
    is_whole = len(tokens) == len(every)
    shown = readable(self._sampler.tokenizer, tokens)
    if self._has_sources:
      weights_1TS = self._attend_to_source(variables, request.source, tokens)
      if weights_1TS is None:
        return {}
      columns = readable(self._source_tokenizer, request.source)
      found = AttentionMap(shown[1:], columns, weights_1TS, is_whole)
      return {"source": found}
    read_1T = np.array([tokens], np.int32)
    is_prefix_1T = np.arange(read_1T.shape[1])[None] < len(request.tokens)
    maps = read_maps(
      self._model, variables, read_1T, bidirectional_BT=is_prefix_1T
    )
    return {k: AttentionMap(shown, shown, x, is_whole) for k, x in maps.items()}

  def _attend_to_source(
    self, variables: PyTree, source_S: np.ndarray, tokens: list[int]
  ) -> np.ndarray | None:
    """Return the attention over the source of each token but the first."""
    source_1S, read_1T = source_S[None], np.array([tokens[:-1]], np.int32)

    @jax.jit
    def attend(variables: PyTree) -> Array | None:
      memory = self._model.apply(
        variables, source_1S, jnp.ones(source_1S.shape, bool), method="encode"
      )
      _, sown = self._model.apply(
        variables, read_1T, memory=memory, mutable=["intermediates"]
      )
      return self._model.attended(sown.get("intermediates", {}))

    return jax.device_get(attend(variables))

  def _encode(self, text: str) -> list[int]:
    tokenizer = self._sampler.tokenizer
    tokens = tokenizer.encode(text).tolist()
    if not tokens:
      raise UsageError("the text is empty; give some text.")
    return [*tokens, tokenizer.eos_id] if self._has_sources else tokens
