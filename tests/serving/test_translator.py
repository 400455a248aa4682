# SPDX-License-Identifier: Apache-2.0
"""The HTTP server with a seq2seq model."""

import jax.numpy as jnp
from starlette.testclient import TestClient

from lmjax.data.tokenizers import WordTokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.generation.seq2seq_sampler import Seq2SeqSampler
from lmjax.serving.app import Limits, Service
from tests.helpers.variables import random_variables
from tests.tiny_models import encoder_decoder


def test_seq2seq_completions_do_not_continue_their_prompt():
  words = WordTokenizer.train(["a b c d e f g"], 0, 1, False)
  model = encoder_decoder(
    num_layers=1,
    num_encoder_layers=1,
    vocab_size=words.vocab_size,
    source_vocab_size=words.vocab_size,
    tie_embeddings=False,
  )
  sampler = Seq2SeqSampler(
    model, Vocabularies({"source": words, "target": words})
  )
  variables = random_variables(model, jnp.zeros((1, 2), int))
  service = Service(sampler, variables, "small", Limits())
  body = dict(prompt="b c", max_tokens=3, min_tokens=3, seed=1, logprobs=0)
  with TestClient(service.app()) as client:
    response = client.post("/v1/completions", json=body)
    refused = client.post("/v1/completions", json=dict(prompt="b", echo=True))
  (choice,) = response.json()["choices"]
  assert choice["text"] == choice["text"].strip() != ""
  assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
  assert refused.status_code == 400
  assert "omit echo" in refused.json()["error"]["message"]
