# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.config import defaults
from lmjax.errors import UsageError
from lmjax.metrics.ranking import figures, make_question, ranks
from lmjax.prediction.retriever import Index
from lmjax.run import Run
from lmjax.training.loop import train

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("block", [1, 4, 23, 64])
@pytest.mark.parametrize("number", [1, 5, 99])
def test_index_matches_sorting_of_all_products(block, number):
  rng = np.random.default_rng(0)
  # Small integers: products are exact, and many are equal.
  vectors = rng.integers(-2, 3, (23, 3)).astype(np.float32)
  queries = rng.integers(-2, 3, (6, 3)).astype(np.float32)
  scores, rows = Index(vectors, block).search(queries, number)
  products = queries @ vectors.T
  expected = np.argsort(-products, axis=1, kind="stable")[:, :number]
  np.testing.assert_array_equal(rows, expected)
  np.testing.assert_array_equal(
    scores, np.take_along_axis(products, expected, axis=1)
  )


PAIRS = [("ab", "A B"), ("ab", "E B"), ("cd", "C D"), ("kd", "C D"), ("e", "E")]


def test_all_variants_are_correct_in_any_order_of_pairs():
  question = make_question(PAIRS, 0)
  assert question == (["ab", "cd", "e", "kd"], *question[1:])
  right = {
    (query, candidate)
    for query, row in zip(question.queries, question.right_QN, strict=True)
    for candidate, is_right in zip(question.candidates, row, strict=True)
    if is_right
  }
  assert right == set(PAIRS)
  turned = make_question(PAIRS[::-1] + PAIRS, 0)
  assert turned[:2] == question[:2]
  np.testing.assert_array_equal(turned[2], question[2])


def test_fewer_candidates_are_a_subset_of_more():
  fewer, more = make_question(PAIRS, 2), make_question(PAIRS, 3)
  assert len(fewer.candidates) == 2 and len(more.candidates) == 3
  assert set(fewer.candidates) < set(more.candidates)
  assert fewer.right_QN.any(axis=1).all()
  for query, right in PAIRS:
    assert (query in fewer.queries) or right not in fewer.candidates


def test_ranks_match_a_loop():
  rng = np.random.default_rng(0)
  queries = rng.integers(-2, 3, (1500, 3)).astype(np.float32)
  candidates = rng.integers(-2, 3, (17, 3)).astype(np.float32)
  right = rng.random((1500, 17)) < 0.1
  right[:, 4] |= ~right.any(axis=1)
  expected = []
  for query, is_right in zip(queries, right, strict=True):
    scores = candidates @ query
    best = max(scores[is_right])
    wrong = scores[~is_right]
    expected.append(1 + sum(score >= best for score in wrong))
  np.testing.assert_array_equal(ranks(queries, candidates, right), expected)
  made = figures([1, 2, 6, 20])
  assert made == {
    "recall@1": 0.25,
    "recall@5": 0.5,
    "recall@10": 0.75,
    "mrr": np.mean([1, 1 / 2, 1 / 6, 1 / 20]),
  }


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Train for a few steps on numbers, in figures and in words."""
  folder = tmp_path_factory.mktemp("retrieval")
  names = ("zero", "one", "two", "three", "four")
  names += ("five", "six", "seven", "eight", "nine")
  lines = [
    f"{number}\t{' '.join(names[int(digit)] for digit in str(number))}\n"
    for number in range(100, 400)
  ]
  (folder / "numbers.tsv").write_text("".join(lines))
  config = defaults.get_config(model="recurrent_encoder", task="matching")
  config.model.width, config.model.dropout = 16, 0.0
  config.data.source, config.data.path = "tsv", str(folder / "numbers.tsv")
  config.data.columns.first, config.data.columns.second = "0", "1"
  config.data.tokenizer = "character"
  config.data.batch_size = 32
  config.matching.second_tokenizer = "word"
  config.matching.num_candidates = 20
  config.optim.learning_rate = 0.01
  config.optim.warmup_steps = 5
  config.train.num_steps = 60
  config.train.eval_every = 60
  config.train.preview_every = 60
  config.parallel.num_devices = 1
  assert train(config, folder / "run") == 0
  return folder / "run"


def test_trained_run_retrieves_matching_texts(workdir):
  run = Run(workdir)
  texts = ["three two one", "one two three", "two two two", "one two three"]
  retriever = run.retriever(texts)
  hits = retriever(["123", "222"], number=9)
  assert [hit[0].text for hit in hits] == ["one two three", "two two two"]
  assert len(hits[0]) == 3
  similarities = [hit.similarity for hit in hits[0]]
  assert similarities == sorted(similarities, reverse=True)
  pair = dict(first="123", second="one two three")
  (prediction,) = run.predict([pair])
  assert prediction.keys() == {"similarity"}
  np.testing.assert_allclose(
    prediction["similarity"], similarities[0], rtol=1e-4
  )
  json.dumps(prediction)


def test_retrieval_metrics_match_searching(workdir):
  run = Run(workdir)
  report = run.evaluate("test")
  pairs = [
    (r["first"], r["second"]) for _, r in run.experiment.corpus.rows("test")
  ]
  question = make_question(pairs, 20)
  hits = run.retriever(question.candidates)(question.queries, number=20)
  places = [
    1 + [hit.text for hit in found].index(dict(pairs)[query])
    for query, found in zip(question.queries, hits, strict=True)
  ]
  for name, value in figures(places).items():
    np.testing.assert_allclose(report[name], value, err_msg=name)
  assert report["recall@1"] > 0.5 and "in_batch_accuracy" in report


def test_command_line_answers_queries(workdir, tmp_path):
  (tmp_path / "lines.txt").write_text("\ufeffone one one\n\none two three\n")
  ended = subprocess.run(
    [
      sys.executable,
      str(ROOT / "scripts/retrieve.py"),
      f"--workdir={workdir}",
      "--query=123",
      "--query=111",
      f"--index={tmp_path / 'lines.txt'}",
      "--number=1",
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr
  lines = [json.loads(line) for line in ended.stdout.splitlines()]
  assert [line["query"] for line in lines] == ["123", "111"]
  found = [line["found"][0]["text"] for line in lines]
  assert found == ["one two three", "one one one"]


def test_rejects_empty_queries_and_texts(workdir):
  run = Run(workdir)
  assert run.retriever(["one", "", "one"]).texts == ["one"]
  with pytest.raises(UsageError, match="there are no texts to search"):
    run.retriever(["", " "])
  with pytest.raises(UsageError, match="a query is empty"):
    run.retriever(["one"])(["1", ""])
