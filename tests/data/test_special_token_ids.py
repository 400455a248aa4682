# SPDX-License-Identifier: Apache-2.0
"""Special tokens may have any ids: nothing but the tokenizer knows them.

Each test runs lmjax with a byte tokenizer whose ids are permuted, so that
`<pad>` is 7, `<eos>` is 256, and 0 to 3 are bytes of text.
"""

import numpy as np
import pytest

from lmjax.data.tokenizers import SPECIALS, TOKENIZERS, ByteTokenizer
from lmjax.generation.sampling_params import SamplingParams
from lmjax.run import Run
from lmjax.task_specs.build import open_corpus
from lmjax.training.loop import train

V = ByteTokenizer().base_vocab_size
PERMUTED_V = (83 * np.arange(V, dtype=np.int32) + 7) % V  # 83 and V are coprime
ORIGINAL_V = np.argsort(PERMUTED_V)


class PermutedByteTokenizer(ByteTokenizer):
  pad_id, unk_id, bos_id, eos_id = PERMUTED_V[:4].tolist()

  def __init__(self, permuted=True):
    assert permuted

  def encode(self, text):
    return PERMUTED_V[super().encode(text)]

  def _decode(self, tokens):
    return super()._decode([int(ORIGINAL_V[token]) for token in tokens])

  def names(self):
    names = ByteTokenizer().names()
    return [*(names[token] for token in ORIGINAL_V), *self.special_tokens]

  def _token_bytes(self, token):
    return super()._token_bytes(int(ORIGINAL_V[token]))

  def _edge_classes(self, token):
    return super()._edge_classes(int(ORIGINAL_V[token]))

  def to_json(self):
    return {"permuted": True}


@pytest.fixture
def permuted(monkeypatch):
  monkeypatch.setitem(TOKENIZERS, "byte", PermutedByteTokenizer)


@pytest.fixture
def make_config(tiny_config, text_folder, tmp_path):
  def make(model, **changes):
    return tiny_config(
      model,
      **{
        "data.source": "text",
        "data.path": str(text_folder),
        "data.split_by": "name",
        "data.tokenizer": "byte",
        "data.cache_dir": str(tmp_path / "cache"),
        "data.seq_len": 24,
        **changes,
      },
    )

  return make


def pairs(folder):
  path = folder / "pairs.tsv"
  path.write_text("".join(f"{n}\t{n * n}\n" for n in range(200)))
  return path


SEQ2SEQ = {
  "task": "seq2seq",
  "data.source": "tsv",
  "data.columns": dict(source="0", target="1"),
  "data.split_by": "ratio",
  "data.valid_fraction": 0.2,
  "data.num_buckets": 1,
}


def test_ids_are_those_of_the_permutation():
  tokenizer = PermutedByteTokenizer()
  assert (tokenizer.pad_id, tokenizer.eos_id) == (7, 256)
  assert not {0, 1, 2, 3} & set(tokenizer.special_ids)
  names = tokenizer.names()
  assert tuple(names[token] for token in tokenizer.special_ids) == SPECIALS
  token_bytes, tokens = tokenizer.token_bytes(), tokenizer.encode("né\n")
  assert b"".join(token_bytes[token] for token in tokens) == "né\n".encode()
  assert tokenizer.decode([*tokens, tokenizer.eos_id]) == "né\n"
  special = [token for token in range(V) if not token_bytes[token]]
  assert sorted(tokenizer.special_ids) == special
  np.testing.assert_array_equal(
    tokenizer.units(), ByteTokenizer().units()[ORIGINAL_V]
  )


@pytest.mark.parametrize(
  ("task", "model"),
  [
    ("language_modeling", "lstm"),
    ("prefix_lm", "transformer"),
    ("fill_in_the_middle", "lstm"),
    ("span_corruption", "encoder_decoder"),
  ],
)
def test_batches_are_permuted_batches(make_config, tmp_path, task, model):
  """What a batch contains does not depend on the numbering of tokens."""
  batches = []
  for kind in (ByteTokenizer, PermutedByteTokenizer):
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(TOKENIZERS, "byte", kind)
      config = make_config(model, task=task)
      corpus = open_corpus(config, None, None, tmp_path / kind.__name__)
      batches.append(corpus.train_batches()[1])
      special = np.arange(V, corpus.sizes["vocab_size"])
  expected, found = batches
  permuted = np.concatenate([PERMUTED_V, special])
  for field, values in expected.items():
    is_tokens = field in ("inputs", "targets", "sources")
    values = permuted[values] if is_tokens else values
    np.testing.assert_array_equal(found[field], values, err_msg=field)


def test_masking_leaves_special_tokens(permuted, make_config, tmp_path):
  config = make_config(
    "encoder", task="masked_lm", **{"objective.mask_rate": 1.0}
  )
  corpus = open_corpus(config, None, None, tmp_path)
  tokenizer, batches = corpus.tokenizer, corpus.eval_batches("valid")
  assert tokenizer.mask_id == V
  never = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
  num_ends = 0
  for batch in map(batches.__getitem__, range(len(batches))):
    is_special = np.isin(batch["targets"], never)
    assert not batch["weights"][is_special].any()
    inserted = batch["inputs"] != batch["targets"]
    assert not np.isin(batch["inputs"][inserted], tokenizer.special_ids).any()
    num_ends += is_special.sum()
  assert num_ends


@pytest.mark.parametrize(
  ("model", "changes"),
  [
    ("transformer", {}),
    ("recurrent_seq2seq", SEQ2SEQ),
  ],
  ids=["language_modeling", "seq2seq"],
)
def test_trains_evaluates_and_samples(
  permuted, make_config, tmp_path, model, changes
):
  if changes:
    changes = {**changes, "data.path": str(pairs(tmp_path))}
  config = make_config(model, **{"train.num_steps": 2, **changes})
  assert train(config, tmp_path / "run") == 0
  run = Run(tmp_path / "run")
  assert np.isfinite(run.evaluate("valid")["loss"])
  tokenizer = run.sampler.tokenizer
  assert isinstance(tokenizer, PermutedByteTokenizer)
  # After two steps the model is nearly uniform over 257 tokens, so that some of
  # these 2,560 tokens are <eos> and end their texts.
  params = SamplingParams(num_tokens=20, num_samples=128, seed=1)
  completions = run.generate("7", params).completions
  reasons = [completion.finish_reason for completion in completions]
  assert set(reasons) == {"stop", "length"}
  never = set(tokenizer.special_ids)
  for completion, reason in zip(completions, reasons, strict=True):
    assert not never & set(completion.tokens)
    assert (len(completion.tokens) < 20) == (reason == "stop")
    assert completion.text == tokenizer.decode(completion.tokens)
