# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from lmjax.data.tokenizers import (
  BPETokenizer,
  ByteTokenizer,
  CharacterTokenizer,
  WordPunctuationTokenizer,
  WordTokenizer,
)
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.results import GeneratedChunk
from lmjax.serving.batcher import Delta
from lmjax.serving.completion_request import parse_request
from lmjax.serving.completion_response import CompletionResponse
from lmjax.serving.token_texts import TokenTexts

TEXT = "Né à 東京, the 🙂 and\nthe end of it. And the rest of the text."


def push_in_chunks(tokenizer, tokens, size, stop_strings=()):
  """Push `size` tokens at a time; return the text and its tokens."""
  stream, texts = (
    StreamingDetokenizer(tokenizer, stop_strings),
    TokenTexts(tokenizer, tokenizer.names()),
  )
  found, sent = [], 0
  for start in range(0, len(tokens), size):
    chunk = tokens[start : start + size]
    finish_reason = "length" if start + size >= len(tokens) else ""
    before = stream.finish_reason
    generated = GeneratedChunk(
      chunk,
      [-float(t) for t in chunk],
      finish_reason,
      [[(t, 0.0)] for t in chunk],
    )
    new = stream.push(generated)
    if not before:
      delta = Delta(
        new,
        stream.tokens[sent:],
        stream.log_probs[sent:],
        stream.top_logprobs[sent:],
        stream.finish_reason,
      )
      found += texts.push(delta)
      sent = len(stream.tokens)
  return stream.text, found


@pytest.mark.parametrize("stop_strings", [(), ("end",), ("the end", "d o")])
@pytest.mark.parametrize(
  "cls",
  [ByteTokenizer, CharacterTokenizer, WordPunctuationTokenizer, BPETokenizer],
)
def test_token_texts_concatenate_to_the_text_for_any_chunk_size(
  cls, stop_strings
):
  tokenizer = cls.train([TEXT], 280, 1, lower_case=False)
  tokens = tokenizer.encode(TEXT).tolist()
  all_at_once = push_in_chunks(tokenizer, tokens, len(tokens), stop_strings)
  for size in (1, 3, 7):
    text, found = push_in_chunks(tokenizer, tokens, size, stop_strings)
    assert (text, found) == all_at_once
    assert "".join(token.text for token in found) == text
    ends = np.cumsum([0, *[len(token.text) for token in found]])
    assert [token.offset for token in found] == ends[:-1].tolist()
    assert [-int(x.log_prob) for x in found] == tokens[: len(found)]
  assert stop_strings or text == tokenizer.decode(tokens)


@pytest.mark.parametrize("prompt", ["the", "the ", ""])
def test_echo_is_separated_from_the_completion(prompt):
  tokenizer = WordPunctuationTokenizer.train([TEXT], 0, 1, False)
  body = json.dumps({"prompt": prompt, "echo": True}).encode()
  parsed = parse_request(body, "small", 9)
  response = CompletionResponse(
    parsed, "small", tokenizer, tokenizer.names(), 1
  )
  delta = [("", ""), ("end", ""), (" of", ""), ("", "length")]
  parts = [response.chunk(0, Delta(x, [], [], [], end)) for x, end in delta]
  text = "".join(part["choices"][0]["text"] for part in parts)
  assert text == f"{prompt.strip()} end of".strip()


def test_tokens_without_text_are_shown_by_name():
  tokenizer = ByteTokenizer()
  texts = TokenTexts(tokenizer, tokenizer.names())
  likely = [[(tokenizer.encode("b")[0], -0.5), (3, -0.7), (4 + 0xC3, -2.0)]]
  a = tokenizer.encode("a").tolist()
  (token,) = texts.push(Delta("a", a, [-3.0], likely, "length"))
  assert token.top_logprobs(2) == {"b": -0.5, "<eos>": -0.7, "a": -3.0}
  assert token.top_logprobs(3)["<0xC3>"] == -2.0


@pytest.mark.parametrize("echo", [True, False])
def test_first_word_is_separated_from_the_prompt(echo):
  tokenizer = WordTokenizer.train(["the end of it"], 9, 1, lower_case=False)
  body = json.dumps(dict(prompt="the", echo=echo))
  if not echo:
    body = json.dumps(dict(prompt="the", logprobs=1))
  parsed = parse_request(body.encode(), "m", 9)
  response = CompletionResponse(parsed, "m", tokenizer, tokenizer.names(), 1)
  first, second = tokenizer.encode("end of").tolist()
  parts = [
    response.chunk(0, Delta("", [], [], [], "")),
    response.chunk(0, Delta("end", [first], [-1.0], [[(second, -0.5)]], "")),
    response.chunk(
      0, Delta(" of", [second], [-2.0], [[(first, -1.5)]], "length")
    ),
  ]
  (choice,) = response.complete(parts)["choices"]
  assert choice["text"] == "the" * echo + " end of"
  if not echo:
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == [" end", " of"]
    assert logprobs["text_offset"] == [0, 4]
    assert logprobs["top_logprobs"][0] == {" of": -0.5, " end": -1.0}
