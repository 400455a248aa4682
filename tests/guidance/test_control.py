# SPDX-License-Identifier: Apache-2.0
"""Constraints and guidance of runs."""

import dataclasses
import json
import re

import jax.numpy as jnp
import pytest
from absl import flags

from lmjax.cli.dataclass_flags import define_flags
from lmjax.data.tokenizers import CharacterTokenizer
from lmjax.errors import UsageError, UserError
from lmjax.generation.constraints.constraints import Constraints
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.guidance.guidance import Guidance
from lmjax.run import Run
from lmjax.training import loop
from tests.helpers.variables import random_variables
from tests.tiny_models import recurrent

CONTEXT = 40  # of the Transformer


@pytest.fixture(scope="module")
def runs(tiny_config, text_folder, tmp_path_factory):
  """Train a run of each kind, once; the path of them all ends in a slash."""
  folder = tmp_path_factory.mktemp("runs")
  text = {
    "data.source": "text",
    "data.path": str(text_folder),
    "data.split_by": "name",
    "train.eval_every": 0,
  }
  rows = folder / "rows.tsv"
  lines = [f"{'low' if n % 9 < 5 else 'high'}\t{n % 9} is\n" for n in range(90)]
  rows.write_text("".join(lines))
  of_rows = {
    "task": "classification",
    "data.source": "tsv",
    "data.path": str(rows),
    "data.columns.label": "0",
    "data.columns.text": "1",
    "init.workdir": str(folder / "lstm"),
    "train.eval_every": 0,
  }
  for name, changes in (
    ("lstm", text),
    ("transformer", text | {"model.max_context": CONTEXT}),
    ("ngram", text | {"data.tokenizer": "byte"}),
    ("recurrent_encoder", of_rows),
  ):
    assert loop.train(tiny_config(name, **changes), folder / name) == 0
  return f"{folder}/"


def write(runs, name="lstm", num_tokens=20, **settings):
  names = [field.name for field in dataclasses.fields(Constraints)]
  constraints = {k: v for k, v in settings.items() if k in names}
  guidance = {k: v for k, v in settings.items() if k not in names}
  params = SamplingParams(num_samples=3, num_tokens=num_tokens, temperature=0.9)
  return (
    Run(runs + name)
    .generate(
      "5 is",
      params,
      constraints=Constraints(**constraints),
      guidance=Guidance(**guidance),
    )
    .texts
  )


def test_constraints_hold_for_samples():
  """For streams as for whole texts; numbers of tokens may differ."""
  tokens = ["<pad>", "<unk>", "<bos>", "<eos>", *"abc ."]
  tokenizer = CharacterTokenizer(tokens, lower_case=False)
  model = recurrent("lstm", tokenizer.vocab_size, num_layers=1)
  pattern = "([abc]{1,3}[ .])+"
  constraints = Constraints(regex=pattern, required_words=("ab", "c"))
  sampler = TextSampler(model, tokenizer)
  variables = random_variables(model, jnp.zeros((1, 1), int))
  for prompts, num_samples, num_tokens in (("a b", 3, 9), (["c", "a"], 1, 20)):
    args = (
      variables,
      prompts,
      SamplingParams(num_samples=num_samples, num_tokens=num_tokens),
    )
    texts = sampler.generate(*args, constraints=constraints).texts
    for text in texts:
      assert re.fullmatch(pattern, text)
      assert {"ab", "c"} <= set(re.split("[ .]", text))
    streamed = [""] * len(texts)
    for delta in sampler.stream(*args, constraints=constraints):
      streamed[delta.index] += delta.text
    assert streamed == texts


@pytest.mark.slow
def test_constraints_hold_for_samples_of_runs(runs, tmp_path):
  pattern = r"( [a-z]+){2,4}, \d+\."
  texts = write(runs, regex=pattern, required_words=("all", "squared is"))
  for text in texts:
    assert re.fullmatch(pattern, text) and len(text) <= 20
    assert re.search(r"\ball\b", text) and re.search(r"\bsquared is\b", text)
  assert len(set(texts)) > 1
  schema = tmp_path / "schema.json"
  schema.write_text('{"type": "array", "items": {"type": "integer"}}')
  for text in write(runs, "ngram", 12, json_schema=str(schema)):
    assert all(isinstance(each, int) for each in json.loads(text))


@pytest.mark.slow
def test_guidance_changes_samples_and_respects_constraints(runs):
  """Weights of 0 change nothing; all of them go together."""
  plain = write(runs)
  experts = dict(
    expert_workdir=runs + "transformer", antiexpert_workdir=runs + "lstm"
  )
  classes = dict(
    classifier_workdir=runs + "recurrent_encoder", classifier_label="high"
  )
  assert write(runs, guidance=0.0, **experts) == plain
  assert write(runs, guidance=3.0, **experts) != plain
  assert write(runs, classifier_weight=0.0, **classes) == plain
  changed = write(runs, classifier_weight=90.0, **classes)
  assert changed != plain
  assert changed != write(runs, classifier_candidates=2, **classes)
  pattern = r" (is|and)( \d)+"
  both = write(
    runs,
    regex=pattern,
    guidance=3.0,
    classifier_weight=9.0,
    **experts,
    **classes,
  )
  assert all(re.fullmatch(pattern, text) for text in both)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "settings", "sentence"),
  [
    ("lstm", dict(regex="a{30}"), "30 tokens, more than num_tokens=20"),
    ("lstm", dict(regex="é"), "no text that the run's tokenizer can write"),
    ("lstm", dict(expert_workdir="ngram"), "has another tokenizer"),
    ("lstm", dict(expert_workdir="recurrent_encoder"), "cannot be an expert"),
    (
      "lstm",
      dict(expert_workdir="transformer", num_tokens=CONTEXT),
      f"add up to 44 tokens, but the context of .* holds {CONTEXT}",
    ),
    (
      "ngram",
      dict(classifier_workdir="recurrent_encoder", classifier_label="low"),
      "has another tokenizer .* init.workdir",
    ),
    (
      "lstm",
      dict(classifier_workdir="lstm", classifier_label="low"),
      "has no classes",
    ),
    (
      "lstm",
      dict(classifier_workdir="recurrent_encoder", classifier_label="odd"),
      "choose one of high, low",
    ),
  ],
)
def test_runs_that_do_not_fit_are_named_in_one_sentence(
  runs, name, settings, sentence
):
  """As are texts that cannot be."""
  settings = {
    k: runs + v if k.endswith("workdir") else v for k, v in settings.items()
  }
  with pytest.raises(UserError, match=sentence) as raised:
    write(runs, name, **settings)
  assert isinstance(raised.value, UsageError)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  ("cls", "settings", "sentence"),
  [
    (Constraints, dict(required_words=(" ",)), "must not contain an empty"),
    (Guidance, dict(guidance=-1.0), "guidance=-1.0 must be from 0 to"),
    (
      Guidance,
      dict(classifier_weight=float("nan")),
      "classifier_weight=nan must be",
    ),
    (Guidance, dict(guidance=1e300), r"guidance=1e[+]300 must be from 0 to"),
    (
      Guidance,
      dict(classifier_candidates=0),
      "classifier_candidates=0 must be at least 1",
    ),
    (Guidance, dict(classifier_label="low"), "need each other; give both"),
  ],
)
def test_invalid_settings_are_one_sentence(cls, settings, sentence):
  with pytest.raises(UsageError, match=sentence):
    cls(**settings)


def test_a_schema_may_start_with_a_byte_order_mark(tmp_path):
  tokenizer = CharacterTokenizer(
    ["<pad>", "<unk>", "<bos>", "<eos>", *"truefals"], lower_case=False
  )
  schema = tmp_path / "schema.json"
  schema.write_text('{"type": "boolean"}', encoding="utf-8-sig")
  bound = Constraints(json_schema=str(schema)).bind(tokenizer)
  assert bound.automaton.distance_U[0] == len("true")


def test_flags_are_the_fields():
  read_constraints = define_flags(Constraints)
  read_guidance = define_flags(Guidance)
  given = [
    "--required_words=a b",
    "--required_words=c,d",
    "--regex=x+",
    "--classifier_weight=2",
  ]
  flags.FLAGS(["sample.py", *given])
  assert read_constraints() == Constraints(
    regex="x+", required_words=("a b", "c,d")
  )
  assert read_guidance() == Guidance(classifier_weight=2)
