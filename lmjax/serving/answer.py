# SPDX-License-Identifier: Apache-2.0
"""What clients are told: texts in the shape of OpenAI's completions.

A whole answer is what its parts, as they are streamed, add up to.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from lmjax.data.tokenizers import Tokenizer
from lmjax.serving.batcher import Delta
from lmjax.serving.question import Question
from lmjax.serving.token_texts import TokenTexts


class Answer:
  """An answer while it is given.

  Args:
    question: what was asked.
    model: its name.
    tokenizer: turns tokens into text.
    names: of all tokens.
    prompt_tokens: how many there were.
  """

  def __init__(
    self,
    question: Question,
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
        question.num_top_logprobs,
        prompt,
        question.echo,
      )
      for prompt in question.prompts
      for _ in range(question.sampling.num_samples)
    ]

  def part(self, index: int, news: Delta) -> dict[str, Any]:
    """Tell what is new of a text."""
    self._new_tokens += len(news.tokens)
    choice = dict(index=index, **self._choices[index].part(news))
    return dict(self._head, choices=[choice])

  def whole(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Tell all at once."""
    choices = []
    for index in range(len(self._choices)):
      own = [part["choices"][0] for part in parts]
      choices.append(_join([x for x in own if x["index"] == index]))
    return dict(self._head, choices=choices, usage=self._usage())

  def counts(self) -> dict[str, Any]:
    """Tell how many tokens there were, behind the last part."""
    return dict(self._head, choices=[], usage=self._usage())

  def _usage(self) -> dict[str, int]:
    return dict(
      prompt_tokens=self._prompt_tokens,
      completion_tokens=self._new_tokens,
      total_tokens=self._prompt_tokens + self._new_tokens,
    )


class _Choice:
  """A text of an answer."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    tokens: TokenTexts,
    num_top_logprobs: int | None,
    prompt: str,
    echo: bool,
  ):
    self._tokenizer, self._tokens, self._num_best = (
      tokenizer,
      tokens,
      num_top_logprobs,
    )
    self._prompt = prompt  # until there is text behind it
    self._echo = prompt if echo else ""  # until it was told

  def part(self, news: Delta) -> dict[str, Any]:
    """Tell what is new; a text is what may stand right behind its prompt."""
    text = self._tokenizer.gap(self._prompt, news.text) + news.text
    news = news._replace(text=text)
    self._prompt = "" if text else self._prompt
    if text or news.finish_reason:
      text, self._echo = self._echo + text, ""
    log_probs = None
    if self._num_best is not None:
      told = self._tokens.push(news)
      log_probs = dict(
        tokens=[token.text for token in told],
        token_logprobs=[token.log_prob for token in told],
        top_logprobs=[token.best(self._num_best) for token in told],
        text_offset=[token.offset for token in told],
      )
    finish_reason = news.finish_reason or None
    return dict(text=text, logprobs=log_probs, finish_reason=finish_reason)


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
  """Add up the parts of a text."""
  joined = dict(parts[-1], text="".join(part["text"] for part in parts))
  if joined["logprobs"]:
    joined["logprobs"] = {
      name: [value for part in parts for value in part["logprobs"][name]]
      for name in joined["logprobs"]
    }
  return joined
