# SPDX-License-Identifier: Apache-2.0
"""Completions in the format of the OpenAI API.

A complete response is the concatenation of the chunks of a stream, so both
report the same texts and log-probabilities.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from lmjax.data.tokenizers import Tokenizer
from lmjax.serving.batcher import Delta
from lmjax.serving.completion_request import CompletionRequest
from lmjax.serving.token_texts import TokenTexts


class CompletionResponse:
  """The response to one request, built from deltas.

  Args:
    completion_request: the request.
    model: name of the model.
    tokenizer: tokenizer of the generated text.
    names: names of all tokens.
    prompt_tokens: number of tokens of all prompts.
  """

  def __init__(
    self,
    completion_request: CompletionRequest,
    model: str,
    tokenizer: Tokenizer,
    names: Sequence[str],
    prompt_tokens: int,
  ):
    self._head = dict(
      id=f"cmpl-{secrets.token_hex(12)}",
      object="text_completion",
      created=int(time.time()),
      model=model,
    )
    self._prompt_tokens, self._new_tokens = prompt_tokens, 0
    self._choices = [
      _Choice(
        tokenizer,
        TokenTexts(tokenizer, names, prompt),
        completion_request.num_top_logprobs,
        prompt,
        completion_request.echo,
      )
      for prompt in completion_request.prompts
      for _ in range(completion_request.sampling.num_samples)
    ]

  def chunk(self, index: int, delta: Delta) -> dict[str, Any]:
    """Return a chunk of a stream: what is new of one choice."""
    self._new_tokens += len(delta.tokens)
    choice = dict(index=index, **self._choices[index].chunk(delta))
    return dict(self._head, choices=[choice])

  def complete(self, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the response that all chunks add up to."""
    choices = []
    for index in range(len(self._choices)):
      own = [chunk["choices"][0] for chunk in chunks]
      choices.append(_join([x for x in own if x["index"] == index]))
    return dict(self._head, choices=choices, usage=self._usage())

  def usage_chunk(self) -> dict[str, Any]:
    """Return the last chunk of a stream, with the numbers of tokens."""
    return dict(self._head, choices=[], usage=self._usage())

  def _usage(self) -> dict[str, int]:
    return dict(
      prompt_tokens=self._prompt_tokens,
      completion_tokens=self._new_tokens,
      total_tokens=self._prompt_tokens + self._new_tokens,
    )


class _Choice:
  """One text of a response.

  Args:
    tokenizer: tokenizer of the text.
    token_texts: assigns the text to its tokens.
    num_top_logprobs: number of most likely tokens per position; None to return
      no log-probabilities.
    prompt: the prompt.
    echo: whether the text starts with the prompt.
  """

  def __init__(
    self,
    tokenizer: Tokenizer,
    token_texts: TokenTexts,
    num_top_logprobs: int | None,
    prompt: str,
    echo: bool,
  ):
    self._tokenizer, self._token_texts = tokenizer, token_texts
    self._num_top_logprobs = num_top_logprobs
    self._prompt = prompt  # until there is text after it
    self._echo = prompt if echo else ""  # until it was returned

  def chunk(self, delta: Delta) -> dict[str, Any]:
    """Return what is new; concatenated to the prompt it is correctly spaced."""
    text = self._tokenizer.separator(self._prompt, delta.text) + delta.text
    delta = delta._replace(text=text)
    self._prompt = "" if text else self._prompt
    if text or delta.finish_reason:
      text, self._echo = self._echo + text, ""
    log_probs = None
    if self._num_top_logprobs is not None:
      tokens = self._token_texts.push(delta)
      log_probs = dict(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.log_prob for token in tokens],
        top_logprobs=[
          token.top_logprobs(self._num_top_logprobs) for token in tokens
        ],
        text_offset=[token.offset for token in tokens],
      )
    finish_reason = delta.finish_reason or None
    return dict(text=text, logprobs=log_probs, finish_reason=finish_reason)


def _join(chunks: list[dict[str, Any]]) -> dict[str, Any]:
  """Concatenate the chunks of one choice."""
  joined = dict(chunks[-1], text="".join(chunk["text"] for chunk in chunks))
  if joined["logprobs"]:
    joined["logprobs"] = {
      name: [value for chunk in chunks for value in chunk["logprobs"][name]]
      for name in joined["logprobs"]
    }
  return joined
