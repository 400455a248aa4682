# SPDX-License-Identifier: Apache-2.0
"""Laws of learning from two texts, whatever is said of them."""

import functools
import shutil

import jax
import numpy as np
import pytest
import scipy.stats

from lmjax.config import defaults
from lmjax.config.finalize import finalize
from lmjax.data.tokenizers import TOKENIZERS
from lmjax.errors import UsageError, UserError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir
from lmjax.ops import in_batch_negatives
from lmjax.optim.optimizers import make_optimizer
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.pmap import PmapStrategy
from lmjax.run import Run
from lmjax.train_state import ModelState, create_state
from lmjax.training.evaluation import Evaluator
from lmjax.training.loop import train
from lmjax.training.step import eval_step
from tests.config.test_config import Recorder
from tests.helpers.predictors import predictor_of
from tests.helpers.variables import scaled_variables

WORDS = ("a", "red", "cat", "sees", "the", "big", "dog", "and", "no", "bird")
SCORED = ("regression", "distribution")


def write_pairs(path, number=24):
  """Write pairs of texts, a label and a score; some texts come twice."""
  rng = np.random.default_rng(0)
  lines = []
  for index in range(number):
    first = " ".join(rng.choice(WORDS, rng.integers(1, 7)))
    second = " ".join(rng.choice(WORDS, rng.integers(1, 12)))
    if index % 5 == 4:
      first = lines[-1].split("\t")[0]
    label = rng.choice(["yes", "no", "maybe"])
    lines.append(f"{first}\t{second}\t{label}\t{rng.uniform(1, 5):.1f}")
  path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def make(tmp_path_factory):
  """Make experiments on the same pairs: make(loss, **changes)."""
  folder = tmp_path_factory.mktemp("pairs")
  for split, number in dict(train=24, valid=21).items():
    write_pairs(folder / f"{split}.tsv", number)

  def make(loss, **changes):
    config = defaults.get_config(model="recurrent_encoder", task="matching")
    config.model.width = 6
    config.data.source, config.data.path = "tsv", str(folder)
    config.data.split_by = "name"
    config.data.columns.first, config.data.columns.second = "0", "1"
    config.data.columns.label = "3" if loss in SCORED else "2"
    config.data.batch_size = 8
    config.matching.loss = loss
    config.update_from_flattened_dict(changes)
    return Experiment(finalize(config), RunDir(folder / "run"))

  return make


def sums_of(experiment, variables, batch):
  loss = functools.partial(experiment.task.loss, train=False)
  return jax.jit(loss)(
    variables["params"], ModelState({}, None), batch, {}
  ).sums


def batch_of(experiment, split="valid", index=1):
  return dict(experiment.corpus.eval_batches(split)[index])


KINDS = {
  "contrastive, cosine": ("contrastive", {}),
  "contrastive, bilinear": ("contrastive", {"matching.comparison": "bilinear"}),
  "triplet, dot, shared": (
    "triplet",
    {"matching.comparison": "dot", "matching.encoders": "shared"},
  ),
  "classification, features": (
    "classification",
    {"matching.comparison": "features"},
  ),
  "classification, cross": ("classification", {"matching.encoders": "cross"}),
  "regression, manhattan": (
    "regression",
    {"matching.comparison": "manhattan", "matching.encoders": "shared"},
  ),
  "distribution, features": (
    "distribution",
    {"matching.comparison": "features", "matching.encoders": "shared"},
  ),
  "own tokenizer": (
    "regression",
    {"data.tokenizer": "character", "matching.second_tokenizer": "word"},
  ),
}
# The others are compiled only where there is time.
ALWAYS = {
  "contrastive, cosine",
  "triplet, dot, shared",
  "classification, cross",
  "distribution, features",
}


@pytest.mark.parametrize(
  "kind",
  [
    kind if kind in ALWAYS else pytest.param(kind, marks=pytest.mark.slow)
    for kind in KINDS
  ],
)
def test_padding_order_and_filling_change_nothing(make, kind):
  loss, changes = KINDS[kind]
  experiment = make(loss, **changes)
  variables = scaled_variables(experiment, seed=3, scale=2.0, shift=0.01)
  batch = batch_of(experiment)
  expected = sums_of(experiment, variables, batch)

  def widen(rows):
    return np.pad(rows, ((0, 0), (0, 8))) if rows.ndim == 2 else rows

  def fill(rows):
    return np.concatenate([rows, rows[:1], rows[2:3]])

  order = np.random.default_rng(0).permutation(8)
  for change in (lambda rows: rows[order], lambda rows: widen(fill(rows))):
    changed = {name: change(rows) for name, rows in batch.items()}
    changed["weights"][8:] = 0.0
    sums = sums_of(experiment, variables, changed)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      sums,
      expected,
    )


@pytest.mark.parametrize(
  "kind", ["contrastive, cosine", "classification, cross"]
)
def test_rows_that_fill_a_batch_learn_nothing(make, kind):
  loss, changes = KINDS[kind]
  experiment = make(loss, **changes)
  variables, batch = (
    scaled_variables(experiment, seed=3, scale=2.0, shift=0.01),
    batch_of(experiment),
  )
  batch["weights"] = np.zeros_like(batch["weights"])

  def total(params):
    outcome = experiment.task.loss(
      params, ModelState({}, None), batch, {}, train=True
    )
    return outcome.sums.loss

  grads = jax.jit(jax.grad(total))(variables["params"])
  assert all(not leaf.any() for leaf in jax.tree.leaves(grads))


def in_batch_by_loops(scores, first, second, weights, one):
  """Sum `one(right, wrong)` over rows, both ways, in plain Python."""
  total, number = 0.0, len(scores)
  for i in range(number):
    wrong = [
      j
      for j in range(number)
      if first[i] != first[j] and second[i] != second[j] and weights[j] > 0
    ]
    forth = one(scores[i, i], [scores[i, j] for j in wrong])
    back = one(scores[i, i], [scores[j, i] for j in wrong])
    total += weights[i] * (forth + back) / 2
  return total


def softmax_loss(right, wrong):
  return np.log(np.exp(right) + sum(map(np.exp, wrong))) - right


def hardest_loss(right, wrong, margin=0.3):
  return max(0.0, margin - right + max(wrong, default=-np.inf))


def mean_loss(right, wrong, margin=0.3):
  return np.mean([max(0.0, margin - right + w) for w in wrong] or [0.0])


@pytest.mark.parametrize("one", [softmax_loss, hardest_loss, mean_loss])
def test_losses_within_a_batch_are_those_of_plain_loops(one):
  rng = np.random.default_rng(1)
  scores = rng.normal(size=(7, 7)).astype(np.float32)
  first, second = [0, 1, 1, 2, 3, 4, 0], [0, 1, 2, 3, 3, 4, 0]
  weights = np.float32([1, 1, 2, 1, 1, 1, 0])
  tokens = np.array(first)[:, None], np.array(second)[:, None]
  mask = np.ones((7, 1), bool)
  same = in_batch_negatives.same_texts(tokens[0], mask)
  same |= in_batch_negatives.same_texts(tokens[1], mask)
  wrong = in_batch_negatives.negatives(same, weights)
  loss_B = {
    softmax_loss: lambda: in_batch_negatives.contrastive_loss(scores, wrong),
    hardest_loss: lambda: in_batch_negatives.triplet_loss(
      scores, wrong, 0.3, True
    ),
    mean_loss: lambda: in_batch_negatives.triplet_loss(
      scores, wrong, 0.3, False
    ),
  }[one]()
  expected = in_batch_by_loops(scores, first, second, weights, one)
  np.testing.assert_allclose(loss_B @ weights, expected, rtol=1e-5)


def test_texts_are_the_same_only_if_they_are_equally_long():
  tokens = np.array([[5, 0], [5, 0], [5, 7]])
  mask = np.array([[1, 1], [1, 0], [1, 0]], bool)
  expected = [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
  np.testing.assert_array_equal(
    in_batch_negatives.same_texts(tokens, mask), expected
  )


def test_the_task_puts_the_losses_together(make):
  experiment = make("contrastive", **{"matching.temperature": 0.5})
  variables, batch = (
    scaled_variables(experiment, seed=3, scale=2.0, shift=0.01),
    batch_of(experiment),
  )
  made = jax.jit(experiment.task.predict)(variables, batch)
  scores = np.float64(made["first"]) @ np.float64(made["second"]).T
  np.testing.assert_allclose(
    made["similarity"], np.diag(scores), rtol=1e-4, atol=1e-5
  )

  def texts(tokens, mask):
    return [tuple(t[m]) for t, m in zip(tokens, mask, strict=True)]

  expected = in_batch_by_loops(
    scores / 0.5,
    texts(batch["inputs"], batch["mask"]),
    texts(batch["others"], batch["others_mask"]),
    batch["weights"],
    softmax_loss,
  )
  sums = sums_of(experiment, variables, batch)
  np.testing.assert_allclose(sums.loss, expected, rtol=1e-4)


def test_a_distribution_lies_on_the_whole_scores_around(make):
  experiment = make("distribution", **{"matching.comparison": "features"})
  variables, batch = (
    scaled_variables(experiment, seed=3, scale=2.0, shift=0.01),
    batch_of(experiment),
  )
  batch["targets"][:3] = 1.0, 3.6, 5.0
  p = np.zeros((8, 5))
  for row, score in zip(p, np.float64(batch["targets"]), strict=True):
    below = min(int(score), 4)  # the whole score below, of those from 1 to 5
    row[below - 1], row[below] = below + 1 - score, score - below
  np.testing.assert_allclose(p[1], [0, 0, 0.4, 0.6, 0], atol=1e-6)
  logits = jax.jit(experiment.model.apply)(variables, batch)
  shares = np.float64(jax.nn.softmax(logits))
  kl = scipy.stats.entropy(p, shares, axis=1) @ batch["weights"]
  sums = sums_of(experiment, variables, batch)
  np.testing.assert_allclose(sums.loss, kl, rtol=1e-4)
  score = jax.jit(experiment.task.predict)(variables, batch)["score"]
  np.testing.assert_allclose(score, shares @ np.arange(1, 6), rtol=1e-5)


def evaluate(experiment, variables, strategy, split="valid"):
  batches = experiment.corpus.eval_batches(split)
  state = create_state(
    jax.random.key(0),
    variables,
    None,
    make_optimizer(experiment.config.optim, 9),
  )
  return Evaluator(experiment.task, strategy, batches)(state)


JIT = functools.partial(JitStrategy, mesh=dict(data=-1))
PMAP = functools.partial(PmapStrategy, mesh=dict(data=-1))


def test_sums_are_the_same_however_the_rows_are_divided(make):
  loss, changes = KINDS["distribution, features"]
  experiment = make(loss, **changes)
  variables = scaled_variables(experiment, seed=3, scale=2.0, shift=0.01)
  one = evaluate(experiment, variables, JIT(jax.devices()[:1]))
  for strategy in (JIT(jax.devices()[:4]), PMAP(jax.devices()[:4])):
    other = evaluate(experiment, variables, strategy)
    assert other.keys() == one.keys()
    for name, value in one.items():
      np.testing.assert_allclose(other[name], value, rtol=1e-4, err_msg=name)


def test_buckets_change_nothing(make):
  changes = {"matching.comparison": "features"}
  several = make("distribution", **changes)
  one = make("distribution", **changes, **{"data.num_buckets": 1})
  shapes = [len(e.corpus.eval_batches("valid").shapes) for e in (several, one)]
  assert shapes[0] > shapes[1] == 1
  variables, strategy = (
    scaled_variables(several, seed=3, scale=2.0, shift=0.01),
    JIT(jax.devices()[:1]),
  )
  expected = evaluate(several, variables, strategy)
  for name, value in evaluate(one, variables, strategy).items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_within_a_batch_jit_sees_all_rows_and_pmap_those_of_a_device(make):
  experiment = make("contrastive")
  variables, batch = (
    scaled_variables(experiment, seed=3, scale=2.0, shift=0.01),
    batch_of(experiment),
  )
  state = create_state(
    jax.random.key(0),
    variables,
    None,
    make_optimizer(experiment.config.optim, 9),
  )
  whole = sums_of(experiment, variables, batch)
  halves = [
    sums_of(experiment, variables, {k: v[part] for k, v in batch.items()})
    for part in (slice(0, 4), slice(4, 8))
  ]
  expected = {JIT: whole, PMAP: halves[0].plus(halves[1])}
  assert abs(expected[JIT].loss - expected[PMAP].loss) > 1e-3
  for make_strategy, sums in expected.items():
    strategy = make_strategy(jax.devices()[:2])
    placed = strategy.device_put(state)
    step = strategy.compile_step(
      functools.partial(eval_step, task=experiment.task), placed, donate=False
    )
    made = step(placed, strategy.shard_batch(batch))[1]
    np.testing.assert_allclose(made.loss, sums.loss, rtol=1e-4)


def predict(experiment, variables, split="valid"):
  """Predict a split row by row; return the figures too."""
  predictor = predictor_of(experiment)
  pairs = list(predictor(variables, experiment.corpus.rows(split)))
  return pairs, predictor.evaluate(pairs)


@pytest.mark.parametrize("loss", SCORED)
def test_correlations_are_those_of_the_predictions(make, loss):
  experiment = make(loss, **{"matching.comparison": "features"})
  variables = scaled_variables(experiment, seed=3, scale=2.0, shift=0.01)
  pairs, figures = predict(experiment, variables)
  scores = [made["score"] for _, made in pairs]
  labels = [float(row["label"]) for row, _ in pairs]
  report = evaluate(experiment, variables, JIT(jax.devices()[:1]))
  expected = scipy.stats.pearsonr(scores, labels).statistic
  np.testing.assert_allclose(report["pearson"], expected, atol=1e-4)
  assert set(report) == {"loss", "pearson"}
  expected = scipy.stats.spearmanr(scores, labels).statistic
  np.testing.assert_allclose(figures["spearman"], expected, rtol=1e-6)


def test_accuracy_is_that_of_the_predictions(make):
  experiment = make("classification")
  variables = scaled_variables(experiment, seed=3, scale=2.0, shift=0.01)
  pairs, figures = predict(experiment, variables)
  assert figures == {}
  right = [row["label"] == made["label"] for row, made in pairs]
  for _, made in pairs:
    probabilities = made["probabilities"]
    np.testing.assert_allclose(sum(probabilities.values()), 1, rtol=1e-5)
    assert probabilities[made["label"]] == max(probabilities.values())
  report = evaluate(experiment, variables, JIT(jax.devices()[:1]))
  np.testing.assert_allclose(report["accuracy"], np.mean(right), rtol=1e-6)


def test_constant_scores_have_no_correlation(make):
  report = make("regression").task.report
  means = dict(loss=0.1, x=0.5, y=0.0, xx=0.25, yy=1.0, xy=0.0)
  assert np.isnan(report(means)["pearson"])


def test_both_texts_stand_in_one_row(make):
  experiment = make("classification", **{"matching.encoders": "cross"})
  corpus = experiment.corpus
  row = dict(first="a red cat", second="the dog", label="yes")
  example = corpus.encode("here", row)
  tokenizer = corpus.tokenizer.tokenizers["first"]
  names = [tokenizer.names()[token] for token in example["inputs"]]
  assert names == ["a", "red", "cat", "<sep>", "the", "dog"]
  assert example["segments"].tolist() == [0, 0, 0, 0, 1, 1]


def test_of_two_texts_in_one_row_the_longer_is_cut_first(make):
  changes = {"matching.encoders": "cross", "data.seq_len": 6}
  corpus = make("classification", **changes).corpus
  names = corpus.tokenizer.tokenizers["first"].names()
  for first, second, wanted in (
    ("a red cat sees the dog", "no bird", "a red cat <sep> no bird"),
    ("no bird", "a red cat sees", "no bird <sep> a red cat"),
    ("a red cat sees", "the big dog and", "a red cat <sep> the big"),
    ("a cat", "the big dog", "a cat <sep> the big dog"),
  ):
    row = dict(first=first, second=second, label="yes")
    example, is_truncated = corpus.truncate(corpus.encode("here", row))
    found = [names[token] for token in example["inputs"]]
    assert " ".join(found) == wanted
    assert is_truncated == (len(f"{first} {second}".split()) > 5)
    mark = found.index("<sep>")
    assert example["segments"].tolist() == [0] * (mark + 1) + [1] * (5 - mark)


def test_the_second_text_keeps_its_own_kind_of_tokenizer(make):
  schema = make(
    "triplet", **{"matching.second_tokenizer": "word"}
  ).corpus.schema
  rows = [dict(first="a cat", second="the dog")]
  known = TOKENIZERS["character"].train(["a cat"], 0, 1, False)
  given = schema.learn(rows, dict(first=known, second=known)).tokenizers
  assert (given["first"].kind, given["second"].kind) == ("character", "word")


def test_skipped_records_are_not_judged(make, tmp_path):
  source = make("regression").config.data.path
  shutil.copytree(source, tmp_path / "pairs")
  with (tmp_path / "pairs/valid.tsv").open("a") as file:
    file.write("a red cat\ta big dog\tyes\tn/a\n")
  reports = []
  for folder in (source, str(tmp_path / "pairs")):
    changes = {
      "data.path": folder,
      "data.malformed": "skip",
      "parallel.num_devices": 1,
      "train.num_steps": 1,
      "train.preview_every": 0,
    }
    config = make("regression", **changes).config
    workdir = tmp_path / f"run{len(reports)}"
    assert train(config, workdir) == 0
    reports.append(Run(workdir).evaluate("valid"))
  assert reports[0] == reports[1]


def test_a_score_must_be_a_number_in_its_range(make):
  experiment = make("regression")
  row = dict(first="a cat", second="the dog", label="5.5")
  with pytest.raises(UserError, match="here: its label 5.5 is not between"):
    experiment.corpus.encode("here", row)
  with pytest.raises(UserError, match="label 'high' is no number"):
    experiment.corpus.encode("here", {**row, "label": "high"})


@pytest.mark.parametrize(
  ("loss", "changes", "message"),
  [
    ("nope", {}, "loss=nope is not known; .* contrastive, triplet"),
    ("triplet", {"matching.encoders": "cross"}, "choose shared or separate"),
    ("contrastive", {"matching.comparison": "manhattan"}, "cosine, dot, bil"),
    (
      "regression",
      {"matching.encoders": "shared", "matching.second_tokenizer": "word"},
      "set matching.encoders=separate",
    ),
    ("distribution", {"matching.max_score": 4.5}, "must differ by an integer"),
    ("regression", {"matching.max_score": 0.0}, "min_score=1.0 must be below"),
    ("triplet", {"matching.negatives": "some"}, "one of hardest, all"),
    ("triplet", {"matching.second_tokenizer": "x"}, "=x is not known"),
    ("triplet", {"loss.label_smoothing": 0.1}, "is not read by task=matching"),
  ],
)
def test_what_does_not_fit_is_a_sentence(make, loss, changes, message):
  with pytest.raises(UsageError, match=message):
    make(loss, **changes)


def test_every_key_of_the_section_is_read(make):
  changes = {"matching.second_tokenizer": "word"}
  experiments = [make("triplet"), make("distribution", **changes)]
  reads = set()
  for experiment in experiments:
    config = Recorder(experiment.config)
    recorded = Experiment(config, experiment.folder)
    assert recorded.task and recorded.renderer
    reads |= config.reads
  keys = {f"matching.{key}" for key in experiments[0].config.matching}
  assert keys - reads == set()
