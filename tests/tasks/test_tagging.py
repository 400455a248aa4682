# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import numpy as np
import pytest
import sklearn.metrics
from seqeval import metrics as seqeval

from lmjax.config import defaults
from lmjax.config.finalize import finalize
from lmjax.data.records.schemas import tagging as schema_lib
from lmjax.data.records.schemas.schema import BadRow, UnseenLabel
from lmjax.data.records.tag_schemes import (
  all_tags,
  spans_of,
  tables_of,
  tags_of,
)
from lmjax.data.tokenizers import TOKENIZERS
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.metrics.sums import add_to, divide
from lmjax.optim.optimizers import make_optimizer
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.prediction.tagging import TagRenderer
from lmjax.task_specs.build import build_model
from lmjax.tasks.tagging import Tagging
from lmjax.train_state import ModelState, create_state
from lmjax.training.step import eval_step, train_step
from tests.helpers.predictors import predictor_of
from tests.helpers.variables import random_variables

B, T, W, V, CHARS, C = 8, 5, 4, 13, 7, 9
NAMES = all_tags(["x", "y"], "bioes")


def make_config(model="recurrent_encoder", **changes):
  config = defaults.get_config(model=model, task="tagging")
  config.model.update(dict(num_layers=1, width=8, dropout=0.0))
  if model == "encoder":
    config.model.num_heads = 2
  config.tagging.dropout = 0.0
  config.tagging.character_width = 6
  config.tagging.character_embedding_width = 3
  config.tagging.bigram_width = 2
  config.data.seq_len = 16
  config.update_from_flattened_dict(changes)
  return config


def make_batch(size=B, seed=0):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, T + 1, (size, 1))
  mask = np.arange(T) < lengths
  letters = rng.integers(1, CHARS, (size, T, W)) * mask[..., None]
  weights = mask.astype(np.float32)
  weights[-1] = 0.0  # a row that fills up
  return dict(
    inputs=rng.integers(0, V, (size, T)) * mask,
    characters=letters.astype(np.int32),
    bigrams=rng.integers(0, 2, (size, T)) * mask,
    mask=mask,
    targets=rng.integers(0, C, (size, T)) * mask,
    weights=weights,
  )


def make_task(model="recurrent_encoder", constrained=True, **changes):
  config = make_config(model, **changes)
  sizes = dict(num_characters=CHARS, num_tags=C)
  network = build_model(config, V, **sizes)
  return Tagging(network, tables_of(NAMES, "bioes"), "entity", constrained)


def variables_of(task, batch):
  fields = ("inputs", "mask", "characters", "bigrams")
  return random_variables(task.model, *(batch[field] for field in fields))


def evaluate_and_predict(task):
  """Compile what gives a batch's sums, and what is predicted of it."""

  @jax.jit
  def both(variables, batch):
    outcome = task.loss(
      variables["params"], ModelState({}, None), batch, {}, train=False
    )
    return outcome.sums, task.predict(variables, batch)

  return both


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("model", ["recurrent_encoder", "encoder"])
def test_padding_changes_nothing(model, crf):
  batch = make_batch()
  task = make_task(model, **{"tagging.crf": crf})
  variables = variables_of(task, batch)
  wider = {
    key: np.pad(leaf, [(0, 0), (0, 4)] + [(0, 0)] * (leaf.ndim - 2))
    for key, leaf in batch.items()
  }
  wider["inputs"][:, T:] = 3
  wider["bigrams"][:, T:] = 1
  wider["targets"][:, T:] = 2
  run = evaluate_and_predict(task)
  sums, found = run(variables, wider)
  wanted_sums, wanted = run(variables, batch)
  assert sums.means() == pytest.approx(wanted_sums.means(), rel=2e-5)
  mask = batch["mask"]
  for name, leaf in wanted.items():
    other = found[name][:, :T]
    np.testing.assert_allclose(other[mask], leaf[mask], atol=1e-5)


@pytest.mark.parametrize("crf", [False, True])
def test_rows_that_fill_up_weigh_nothing(crf):
  batch = make_batch()
  task = make_task(**{"tagging.crf": crf})
  variables = variables_of(task, batch)
  run = evaluate_and_predict(task)
  changed = {key: leaf.copy() for key, leaf in batch.items()}
  changed["inputs"][-1] = (changed["inputs"][-1] + 1) % V
  sums, _ = run(variables, batch)
  assert run(variables, changed)[0].means() == sums.means()
  assert sums.weight == batch["mask"][:-1].sum()


def test_a_crf_without_transitions_is_a_softmax():
  batch = make_batch()
  with_crf = make_task(constrained=False, **{"tagging.crf": True})
  without = make_task(constrained=False)
  variables = variables_of(with_crf, batch)
  variables["params"]["transitions"] = np.zeros((C + 1, C + 1), np.float32)
  plain = {
    "params": {
      k: v for k, v in variables["params"].items() if k != "transitions"
    }
  }
  sums, found = evaluate_and_predict(with_crf)(variables, batch)
  plain_sums, wanted = evaluate_and_predict(without)(plain, batch)
  assert sums.means() == pytest.approx(plain_sums.means(), rel=1e-5)
  mask = batch["mask"]
  for name in wanted:
    np.testing.assert_allclose(found[name][mask], wanted[name][mask], rtol=1e-4)


@pytest.mark.parametrize("crf", [False, True])
def test_figures_are_seqevals_and_tags_are_valid(crf):
  """Of all batches together; predictions are what a scheme would write."""
  task = make_task(**{"tagging.crf": crf})
  prediction = TagRenderer(None, "bioes")
  total, gold, guessed = {}, [], []
  variables = variables_of(task, make_batch())
  run = evaluate_and_predict(task)
  for seed in range(3):
    batch = make_batch(60, seed)
    sums, outputs = run(variables, batch)
    add_to(total, sums)
    tags = np.asarray(outputs["tags"])
    for row in range(len(tags) - 1):
      length = batch["mask"][row].sum()
      wanted = [NAMES[tag] for tag in batch["targets"][row, :length]]
      found = [NAMES[tag] for tag in tags[row, :length]]
      assert tags_of(spans_of(found), length, "bioes") == found
      gold.append(tags_of(spans_of(wanted), length, "bio"))
      guessed.append(tags_of(spans_of(found), length, "bio"))
  report = task.report(divide(total))
  assert report["entity_f1"] > 0
  for name in ("precision", "recall", "f1"):
    wanted = getattr(seqeval, f"{name}_score")(gold, guessed)
    np.testing.assert_allclose(report[f"entity_{name}"], wanted, rtol=1e-6)
  figures = prediction.evaluate(
    ({"tags": found}, {"tags": wanted})
    for found, wanted in zip(guessed, gold, strict=True)
  )
  by_type = seqeval.classification_report(gold, guessed, output_dict=True)
  assert figures == pytest.approx(
    {f"f1.{kind}": by_type[kind]["f1-score"] for kind in ("x", "y")}
  )


def test_figures_of_plain_tags_are_scikit_learns():
  rng = np.random.default_rng(0)
  names = ["NOUN", "VERB", "X"]
  gold, guessed = (
    [[names[tag] for tag in row] for row in rng.integers(0, 3, (20, 6))]
    for _ in range(2)
  )
  found = TagRenderer(None, "none").evaluate(
    ({"tags": a}, {"tags": b}) for a, b in zip(guessed, gold, strict=True)
  )
  wanted = sklearn.metrics.f1_score(
    sum(gold, []), sum(guessed, []), average=None
  )
  keys = [f"f1.{name}" for name in names]
  assert found == pytest.approx(dict(zip(keys, wanted, strict=True)))


def test_nothing_found_is_no_division():
  task = make_task()
  means = dict(loss=1.0, correct=0.0, predicted=0.0, labels=0.0)
  assert task.report(means) == dict(
    loss=1.0, entity_precision=0.0, entity_recall=0.0, entity_f1=0.0
  )


def test_jit_over_a_mesh_is_pmap():
  task = make_task(**{"tagging.crf": True})
  config = defaults.get_config(model="lstm").optim
  optimizer = make_optimizer(config, 3)
  results = []
  for strategy in (
    JitStrategy(jax.devices()[:1], dict(data=-1)),
    JitStrategy(jax.devices()[:4], dict(data=-1)),
    PmapStrategy(jax.devices()[:4], dict(data=-1)),
  ):
    state = strategy.create(
      lambda: create_state(
        jax.random.key(0),
        variables_of(task, make_batch()),
        None,
        optimizer,
      )
    )
    step = functools.partial(
      train_step, task=task, optimizer=optimizer, num_microbatches=1
    )
    step = strategy.compile_step(step, state)
    judge = functools.partial(eval_step, task=task)
    judge = strategy.compile_step(judge, state, donate=False)
    batch = strategy.shard_batch(make_batch())
    state, learned = step(state, batch)
    _, judged = judge(state, batch)
    results.append((learned.means(), judged.means()))
  for other in results[1:]:
    for a, b in zip(results[0], other, strict=True):
      assert b == pytest.approx(a, rel=1e-4)


ROWS = [
  dict(tokens=["New", "York", "is", "big"], tags=["I-loc", "I-loc", "O", "O"]),
  dict(tokens=["big", "Apple"], tags=["O", "B-org"]),
]


def make_schema(**changes):
  config = make_config(**{"tagging.scheme": "bioes"} | changes)
  return schema_lib.build(config, None)


def test_rows_become_numbers():
  schema = make_schema(**{"tagging.max_characters": 3, "data.lower_case": True})
  words = schema.learn(ROWS, {})
  tags = words.labels["tags"]
  assert tags.names[0] == "O" and set(tags.names) == set(
    all_tags(["loc", "org"], "bioes")
  )
  example = schema.encode(ROWS[0], words)
  assert [tags.names[tag] for tag in example["targets"]] == [
    *("B-loc", "E-loc", "O", "O")
  ]
  names = words.tokenizers["tokens"].names()
  assert [names[token] for token in example["inputs"]] == [
    *("new", "york", "is", "big")
  ]
  letters = words.tokenizers["characters"].names()
  spelled = [[letters[c] for c in row] for row in example["characters"]]
  assert spelled[1] == ["Y", "o", "r"] and spelled[2] == ["i", "s", "<pad>"]
  unknown = schema.encode(dict(tokens="big Rome"), words)
  assert list(unknown["inputs"]) == [names.index("big"), 1]
  assert "targets" not in unknown


def test_tokens_are_known_two_by_two():
  schema = make_schema(**{"data.min_freq": 2})
  rows = [dict(tokens="a b a b", tags=["O"] * 4)]
  words = schema.learn(rows, {})
  assert words.tokenizers["bigrams"].names()[4:] == ["a b"]
  assert list(schema.encode(rows[0], words)["bigrams"]) == [4, 1, 4, 1]


def test_words_may_hold_blanks_and_rare_ones_are_unknown():
  schema = make_schema(**{"tagging.scheme": "none", "data.min_freq": 2})
  rows = [dict(tokens=["1 000", "a", "1 000"], tags=["N", "D", "N"])]
  words = schema.learn(rows, {})
  assert words.tokenizers["tokens"].names()[4:] == ["1 000"]
  assert list(schema.encode(rows[0], words)["inputs"]) == [4, 1, 4]


def test_words_are_found_among_characters():
  schema = make_schema(**{"tagging.scheme": "segmentation"})
  rows = [dict(tokens=["ab", "c"], tags=["ab", "c"])]
  words = schema.learn(rows, {})
  example = schema.encode(rows[0], words)
  names = words.labels["tags"].names
  assert [names[tag] for tag in example["targets"]] == ["B", "E", "S"]
  again = schema.encode(dict(tokens="abc"), words)
  np.testing.assert_array_equal(again["inputs"], example["inputs"])
  outputs = dict(
    tags=np.array([names.index(tag) for tag in "SBEM"]),
    probabilities=np.array([0.5, 0.25, 0.75, 0.1]),
  )
  made = TagRenderer(words, "segmentation").render(outputs, dict(tokens="abc"))
  assert made == dict(words=["a", "bc"], probabilities=[0.5, 0.25])


@pytest.mark.parametrize("scheme", ["none", "bio", "segmentation"])
def test_tags_may_be_a_text_with_blanks(scheme):
  tags = ["new", "york"] if scheme == "segmentation" else ["O", "O"]
  schema = make_schema(**{"tagging.scheme": scheme})
  words = schema.learn([dict(tokens=["new", "york"], tags=tags)], {})
  wanted = schema.encode(dict(tokens=["new", "york"], tags=tags), words)
  found = schema.encode(dict(tokens="new york", tags=" ".join(tags)), words)
  assert found.keys() == wanted.keys()
  for field, values in wanted.items():
    np.testing.assert_array_equal(found[field], values, err_msg=field)


@pytest.mark.parametrize(
  ("scheme", "kind", "fits"),
  [
    ("bio", "character", "word"),
    ("segmentation", "word", "character"),
    ("bio", "byte", "word"),
  ],
)
def test_a_tokenizer_of_another_unit_is_refused(scheme, kind, fits):
  schema = make_schema(**{"tagging.scheme": scheme})
  row = dict(tokens=["ab"], tags=["ab"] if scheme == "segmentation" else ["O"])
  known = TOKENIZERS[kind].train(["ab"], 0, 1, False)
  words = schema.learn([row], {"tokens": known})
  with pytest.raises(UserError, match=f"whose data.tokenizer is {fits}"):
    schema.encode(row, words)


@pytest.mark.parametrize(
  ("row", "error", "message"),
  [
    (dict(tokens=[], tags=[]), BadRow, "it has no tokens"),
    (dict(tokens="New York", tags=["O"]), BadRow, "2 tokens and 1 tags"),
    (dict(tokens=["a"], tags=["O", "O"]), BadRow, "1 tokens and 2 tags"),
    (dict(tokens=["a"], tags=["NOUN"]), BadRow, "'NOUN' is neither O nor"),
    (dict(tokens=["a"], tags=["B-zoo"]), UnseenLabel, "S-zoo"),
  ],
)
def test_bad_rows_say_why(row, error, message):
  schema = make_schema()
  words = schema.learn(ROWS, {})
  with pytest.raises(error, match=message):
    schema.encode(row, words)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("tagging.scheme", "iob", "choose one of none, bio, bioes, segmentation"),
    ("tagging.character_encoder", "rnn", "choose one of cnn, lstm"),
    ("tagging.character_width", 0, "must be at least 1"),
    ("loss.label_smoothing", 0.1, "is not read by task=tagging"),
  ],
)
def test_values_that_cannot_be_are_sentences(key, value, message):
  with pytest.raises(UsageError, match=message):
    finalize(make_config(**{key: value}))


@pytest.mark.parametrize("model", ["ngram", "lstm", "word_vectors"])
def test_models_that_read_no_whole_texts_are_refused(model):
  with pytest.raises(UsageError, match=f"does not fit model.name={model}"):
    finalize(defaults.get_config(model, "tagging"))


@pytest.mark.parametrize("scheme", ["bioes", "none", "segmentation"])
def test_long_texts_are_cut_to_learn_and_answered_whole(scheme, tmp_path):
  """Predictions have a tag a token, evaluation counts all tokens."""
  line = "Rome B-loc\nis O\nlovely O\n"
  for split in ("train", "valid"):
    text = "\n".join(line * (1 + n % 4) for n in range(12))
    (tmp_path / f"{split}.conll").write_text(text)
  tags = "0" if scheme == "segmentation" else "1"
  config = make_config(
    **{
      "tagging.scheme": scheme,
      "data.source": "conll",
      "data.path": str(tmp_path),
      "data.split_by": "name",
      "data.columns.tokens": "0",
      "data.columns.tags": tags,
      "data.seq_len": 5,
    }
  )
  experiment = Experiment(finalize(config), RunDir(tmp_path / "run"))
  corpus = experiment.corpus
  learned = corpus.train_batches()[0]["weights"].sum()
  counted = corpus.eval_batches("valid")[0]["weights"].sum()
  size = len("Romeislovely") if scheme == "segmentation" else 3
  assert counted == 12 * 2.5 * size and learned < counted
  variables = experiment.make_variables(jax.random.key(0))
  pairs = list(predictor_of(experiment)(variables, corpus.rows("valid")))
  assert len(pairs) == 12
  for row, made in pairs:
    if scheme == "segmentation":
      assert "".join(made["words"]) == "".join(row["tokens"])
    else:
      assert len(made["tags"]) == len(made["probabilities"])
      assert len(made["tags"]) == len(row["tokens"])
