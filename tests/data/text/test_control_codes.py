# SPDX-License-Identifier: Apache-2.0
"""Texts that begin with the code of their kind, from files to rows."""

import jax
import numpy as np
import pytest

from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from tests.tiny_models import recurrent

EOS = Tokenizer.eos_id

KINDS = ("poem", "recipe")


@pytest.fixture(scope="module")
def labeled_texts(tmp_path_factory):
  """Two kinds of text, three of each, whose letters tell them apart."""
  labeled_texts = tmp_path_factory.mktemp("kinds")
  for kind, letters in zip(KINDS, ("abc", "xyz"), strict=True):
    (labeled_texts / kind).mkdir()
    for split, times in (("train", 20), ("valid", 7), ("test", 5)):
      (labeled_texts / kind / f"{split}.{kind}.txt").write_text(letters * times)
  return labeled_texts


@pytest.fixture
def make(tiny_config, labeled_texts, tmp_path):
  """Make experiments that learn under codes."""

  def make(**changes):
    settings = {
      "task": "control_codes",
      "data.source": "text",
      "data.path": str(labeled_texts),
      "data.split_by": "name",
      "data.batch_size": 4,
    }
    settings |= {key.replace("__", "."): x for key, x in changes.items()}
    config = tiny_config("lstm", **settings)
    return Experiment(config, RunDir(tmp_path / "run"))

  return make


def test_each_row_begins_with_the_code_of_its_document(make):
  corpus = make().corpus
  tokenizer = corpus.tokenizer
  assert tokenizer.special_tokens == ("<poem>", "<recipe>")
  kinds = {
    token: tokenizer.special_token_id(
      "<poem>" if letter in "abc" else "<recipe>"
    )
    for letter in "abcxyz"
    for token in tokenizer.encode(letter)
  }
  batch = corpus.train_batches()[0]
  assert batch["inputs"].shape == batch["targets"].shape == (4, 8)
  seen = set()
  for row in batch["inputs"]:
    code = row[0]
    seen.add(code)
    for token in row[1:]:
      code = token if token >= tokenizer.base_vocab_size else code
      assert token == EOS or kinds.get(token, code) == code
  assert len(seen) == 2
  follows = batch["targets"][:, :-1] == batch["inputs"][:, 1:]
  assert follows.all()


def test_every_token_of_the_text_counts_once_and_no_code_does(make):
  corpus = make().corpus
  batches, tokenizer = corpus.eval_batches("valid"), corpus.tokenizer
  counted = np.concatenate(
    [
      batches[index]["targets"][batches[index]["weights"] > 0]
      for index in range(len(batches))
    ]
  )
  tokens = corpus.stream("valid").tokens
  np.testing.assert_array_equal(
    counted, tokens[tokens < tokenizer.base_vocab_size]
  )
  assert len(counted) == 2 * (7 * 3 + 1)


def test_a_code_by_itself_is_its_files_name(make):
  by_file = {"objective__control_code_from": "file", "data__split_by": "ratio"}
  assert make(**by_file).corpus.tokenizer.special_tokens == (
    "<test>",
    "<train>",
    "<valid>",
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"objective__control_code_from": ""},
      "objective.control_code_from is empty",
    ),
    (
      {"objective__control_code_from": "author"},
      "must be file or folder",
    ),
    ({"data__order": "stateful"}, "data.order=stateless"),
    ({"data__seq_len": 1}, "data.seq_len=1 must be at least 2"),
    (
      {"data__source": "python_docs", "data__split_by": "ratio"},
      "choose another source",
    ),
    ({"data__train_files": "*train.poem*"}, "'recipe' is no control code"),
  ],
)
def test_what_cannot_be_coded_is_a_sentence(make, changes, message):
  with pytest.raises(UserError, match=message):
    make(**changes).corpus.eval_batches("valid")


def test_a_sample_stands_under_a_code(make):
  tokenizer = make().corpus.tokenizer
  model = recurrent("lstm", tokenizer.vocab_size)
  sampler = TextSampler(model, tokenizer)
  code = tokenizer.special_token_id("<recipe>")
  assert sampler.encode("xy", "recipe").tolist() == [
    code,
    *tokenizer.encode("xy"),
  ]
  variables = model.init(jax.random.key(0), np.zeros((1, 1), int))
  params = SamplingParams(num_tokens=5, control_code="poem")
  text = sampler.generate(variables, "", params).text
  assert "<" not in text
  with pytest.raises(UsageError, match="choose one of poem, recipe"):
    sampler.generate(variables, "", SamplingParams(control_code="novel"))
