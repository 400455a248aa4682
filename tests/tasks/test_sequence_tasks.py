# SPDX-License-Identifier: Apache-2.0
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from lmjax.config import defaults
from lmjax.config import finalize as config_lib
from lmjax.data.tokenizers import TOKENIZERS, WordTokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.decoding.beam import length_normalizer
from lmjax.errors import UsageError
from lmjax.metrics.edit_distance import edit_distance
from lmjax.metrics.rouge import rouge
from lmjax.prediction.seq2seq import METRICS, TextRenderer
from lmjax.run import Run
from lmjax.task_specs.build import build_model
from lmjax.tasks.seq2seq import Seq2Seq
from lmjax.training import loop
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, encoder_decoder

PAD = WordTokenizer.pad_id
UNK = WordTokenizer.unk_id
BOS = WordTokenizer.bos_id
EOS = WordTokenizer.eos_id

V, B, S, T = VOCAB_SIZE, 3, 5, 6
MASK = np.arange(S) < np.array([[5], [3], [4]])
SOURCES = np.random.default_rng(0).integers(4, V, (B, S)) * MASK
BATCH = dict(sources=SOURCES, source_mask=MASK)


def recurrent(**settings):
  config = defaults.get_config(model="recurrent_seq2seq")
  config.model.update(dict(width=8, embedding_width=6, dropout=0.0) | settings)
  return build_model(config, V)


MODELS = {
  "recurrent": lambda: recurrent(copy_mechanism=True, input_feeding=True),
  "transformer": lambda: encoder_decoder(
    num_layers=1, num_encoder_layers=1, positions="relative"
  ),
}
EACH = pytest.mark.parametrize("name", MODELS)


@functools.cache
def prepared(name):
  model = MODELS[name]()
  return model, random_variables(model, jnp.zeros((B, T), jnp.int32))


def make_task(
  model,
  beam_size,
  num_return_sequences=1,
  length_penalty=0.0,
  coverage_penalty=0.0,
):
  return Seq2Seq(
    model=model,
    units_V=np.ones(V, np.float32),
    unit="word",
    stateful=False,
    beam_size=beam_size,
    num_return_sequences=num_return_sequences,
    length_penalty=length_penalty,
    coverage_penalty=coverage_penalty,
    max_target_length=T,
    first_token=BOS,
    stop_token=EOS,
    pad_token=PAD,
    banned=(PAD, UNK, BOS),
  )


@functools.partial(jax.jit, static_argnums=0)
def log_probs(model, variables, inputs):
  """Score all next tokens with the whole text there at once."""
  memory = model.apply(variables, SOURCES, MASK, method="encode")
  hidden, _ = model.apply(variables, inputs, memory=memory)
  logits = model.apply(variables, hidden, method="logits")
  banned = jnp.isin(jnp.arange(V), jnp.array([PAD, UNK, BOS]))
  return jax.nn.log_softmax(jnp.where(banned, -jnp.inf, logits))


@functools.partial(jax.jit, static_argnums=0)
def attended(model, variables, inputs):
  """Say what tokens attend to, with the whole text there at once."""
  memory = model.apply(variables, SOURCES, MASK, method="encode")
  _, sown = model.apply(
    variables, inputs, memory=memory, mutable=["intermediates"]
  )
  return model.attended(sown["intermediates"])


def after_bos(tokens):
  return np.pad(tokens, ((0, 0), (1, 0)), constant_values=BOS)[:, :-1]


@EACH
def test_greedy_search_writes_what_the_model_finds_best(name):
  model, variables = prepared(name)
  task = make_task(model, 1)
  made = jax.jit(task.predict)(variables, BATCH)["targets"][:, 0]
  tokens = np.full((B, T), PAD)
  done = np.zeros(B, bool)
  for t in range(T):
    best = log_probs(model, variables, after_bos(tokens))[:, t].argmax(-1)
    tokens[:, t] = np.where(done, PAD, best)
    done |= tokens[:, t] == EOS
  np.testing.assert_array_equal(made, tokens)


@EACH
def test_scores_of_beams_are_those_of_whole_texts(name):
  """Carries follow their hypotheses, and sources theirs."""
  model, variables = prepared(name)
  task = make_task(model, 4, num_return_sequences=3, length_penalty=0.7)
  made = jax.jit(task.predict)(variables, BATCH)
  for n in range(3):
    tokens = np.array(made["targets"][:, n])
    each = log_probs(model, variables, after_bos(tokens))
    picked = np.take_along_axis(np.array(each), tokens[..., None], 2)[..., 0]
    counts = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) == 0
    total = np.where(counts, picked, 0.0).sum(axis=1)
    wanted = total / length_normalizer(counts.sum(axis=1), 0.7)
    np.testing.assert_allclose(made["scores"][:, n], wanted, atol=1e-3)
  assert len({tuple(row) for row in np.array(made["targets"][0]).tolist()}) == 3


@pytest.mark.parametrize(
  ("name", "scale"), [("recurrent", 1.0), ("transformer", 3.0)]
)
def test_scores_lose_by_what_is_left_out_of_sources(name, scale):
  """Attention is read again here, with the whole text there at once.

  Parameters are so large that it is not the same everywhere.
  """
  model, variables = prepared(name)
  variables = jax.tree.map(lambda leaf: scale * leaf, variables)
  settings = dict(num_return_sequences=3, length_penalty=0.7)
  plain, made = (
    jax.jit(make_task(model, 4, coverage_penalty=x, **settings).predict)(
      variables, BATCH
    )
    for x in (0.0, 2.0)
  )
  assert not np.all(plain["targets"] == made["targets"])
  for n in range(3):
    tokens = np.array(made["targets"][:, n])
    inputs = after_bos(tokens)
    each = log_probs(model, variables, inputs)
    weights_BTS = attended(model, variables, inputs)
    np.testing.assert_allclose(weights_BTS.sum(axis=2), 1.0, atol=1e-5)
    counts = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) == 0
    picked = np.take_along_axis(np.array(each), tokens[..., None], 2)[..., 0]
    total = np.where(counts, picked, 0.0).sum(axis=1)
    covered = np.array(weights_BTS * counts[..., None]).sum(axis=1)
    covered = np.where(MASK, np.minimum(covered, 1.0), 1.0)
    lost = np.log(covered).sum(axis=1)
    wanted = total / length_normalizer(counts.sum(axis=1), 0.7) + 2.0 * lost
    np.testing.assert_allclose(made["scores"][:, n], wanted, atol=2e-3)


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory):
  """Write commands and what is to be done, some with two answers."""
  folder = tmp_path_factory.mktemp("pairs")
  verbs, times = ("walk", "run", "jump", "look"), ("once", "twice", "thrice")
  rows = []
  for verb in verbs:
    for number, word in enumerate(times, 1):
      rows.append((f"{verb} {word}", " ".join([verb.upper()] * number)))
    rows.append((f"{verb} once", verb.upper()[:2]))
  lines = ["\t".join(row) + "\n" for row in rows]
  (folder / "train.tsv").write_text("".join(lines))
  (folder / "test.tsv").write_text("".join(lines[::2] + lines[1::2]))
  return folder


def make_config(folder, **changes):
  config = defaults.get_config(model="recurrent_seq2seq")
  config.update_from_flattened_dict(
    {
      "model.width": 16,
      "model.embedding_width": 8,
      "seq2seq.target_tokenizer": "word",
      "seq2seq.max_target_length": 4,
      "data.source": "tsv",
      "data.path": str(folder),
      "data.split_by": "name",
      "data.valid_fraction": 0.2,
      "data.seq_len": 16,
      "data.tokenizer": "word",
      "data.batch_size": 4,
      "data.num_buckets": 1,
      "parallel.num_devices": 1,
      "train.num_steps": 30,
      "train.eval_every": 30,
      "train.preview_every": 0,
      "train.log_every": 30,
      "optim.warmup_steps": 1,
      "optim.learning_rate": 0.03,
      **changes,
    }
  )
  config.data.columns = dict(source="0", target="1")
  return config


@pytest.fixture(scope="module")
def workdir(pairs_folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run") / "run"
  assert loop.train(make_config(pairs_folder), workdir) == 0
  return workdir


def test_a_run_folder_predicts_what_it_is_judged_by(workdir):
  run = Run(workdir)
  report = run.evaluate("test")
  rows = [row for _, row in run.experiment.corpus.rows("test")]
  made = list(run.predict(rows, batch_size=5))
  figures = run.experiment.renderer.evaluate(zip(made, rows, strict=True))
  assert figures["bleu_signature"].startswith("nrefs:var")
  assert {k: report[k] for k in figures} == figures
  assert report.keys() >= {"loss", "accuracy", "perplexity", "exact_match"}
  # Targets are not needed, and rows stand alone.
  bare = [{"source": row["source"]} for row in rows]
  for again in (
    list(run.predict(bare)),
    list(run.predict(bare[::-1], batch_size=1))[::-1],
  ):
    for ours, theirs in zip(made, again, strict=True):
      assert ours["target"] == theirs["target"]
      assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
  texts = {
    row["source"]: answer for row, answer in zip(rows, made, strict=True)
  }
  right = [
    answer["target"]
    in [row["target"] for row in rows if row["source"] == source]
    for source, answer in texts.items()
  ]
  assert figures["exact_match"] == np.mean(right) > 0


def test_buckets_and_beams_of_a_stored_run(workdir):
  plain = Run(workdir).evaluate("test")
  other = Run(
    workdir, overrides={"data.num_buckets": 2, "data.batch_size": 16}
  ).evaluate("test")
  for key, value in plain.items():
    if isinstance(value, float):
      np.testing.assert_allclose(other[key], value, rtol=1e-4, err_msg=key)
  run = Run(
    workdir,
    overrides={"seq2seq.beam_size": 3, "seq2seq.num_return_sequences": 2},
  )
  (made,) = run.predict([{"source": "walk twice"}])
  assert len(made["best"]) == 2 and made["target"] == made["best"][0]["target"]
  assert made["score"] >= made["best"][1]["score"]


@pytest.mark.slow
def test_jit_equals_pmap(pairs_folder, tmp_path):
  losses = []
  for strategy in ("jit", "pmap"):
    config = make_config(
      pairs_folder,
      **{
        "parallel.strategy": strategy,
        "parallel.num_devices": 2,
        "train.num_steps": 3,
        "train.eval_every": 0,
        "train.log_every": 3,
        "model.copy_mechanism": True,
        "model.dropout": 0.0,
        "seq2seq.target_tokenizer": "",
      },
    )
    folder = tmp_path / strategy
    assert loop.train(config, folder) == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    losses.append(json.loads(lines[-1])["loss"])
  np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"target_tokenizer": "x"}, "seq2seq.target_tokenizer=x is not known"),
    (
      {"num_return_sequences": 2},
      "num_return_sequences=2 must be at most seq2seq.beam_size=1",
    ),
    ({"coverage_penalty": 0.2}, "coverage_penalty=0.2 needs"),
    ({"metrics": "bleu,x"}, "metrics=bleu,x names 'x', which is not known"),
    ({"beam_size": 0}, "beam_size=0 must be at least 1"),
    ({"max_target_length": 129}, "=129 is more than the 128 learned position"),
  ],
)
def test_options_that_cannot_be_are_sentences(changes, message):
  config = defaults.get_config(model="encoder_decoder", task="seq2seq")
  config.model.positions = "learned"
  config_lib.finalize(config)
  config.seq2seq.update(changes)
  with pytest.raises(UsageError, match=message):
    config_lib.finalize(config)


def test_what_attends_to_no_source_covers_none():
  config = defaults.get_config(model="recurrent_seq2seq", task="seq2seq")
  config.seq2seq.update(dict(coverage_penalty=0.2, beam_size=2))
  config_lib.finalize(config)
  config.model.attention = "none"
  with pytest.raises(UsageError, match="a model with attention to its source"):
    config_lib.finalize(config)


TEXTS = ["the cat sat on the mat .", "a b c", "it rains today ."]
REFERENCES = [
  ["the cat is on the mat .", "there is a cat on the mat ."],
  ["a b c"],
  ["today it rains .", "it rains .", "rain today ."],
]


def judged(
  metrics, texts=TEXTS, references=REFERENCES, kind=WordTokenizer, lower=False
):
  words = kind.train(sum(references, []), 300, 1, lower)
  prediction = TextRenderer(Vocabularies({"source": words}), metrics)
  pairs = [
    ({"target": text}, {"source": f"s{number}", "target": reference})
    for number, (text, own) in enumerate(zip(texts, references, strict=True))
    for reference in own
  ]
  return prediction.evaluate(reversed(pairs)), prediction.evaluate(pairs)


def test_bleu_and_chrf_are_those_of_sacrebleu():
  turned, figures = judged("bleu, chrf")
  assert turned["chrf"] == pytest.approx(figures["chrf"])
  streams = [
    ["the cat is on the mat .", "a b c", "today it rains ."],
    ["there is a cat on the mat .", None, "it rains ."],
    [None, None, "rain today ."],
  ]
  assert figures["bleu"] == sacrebleu.corpus_bleu(TEXTS, streams).score
  assert figures["chrf"] == sacrebleu.corpus_chrf(TEXTS, streams).score
  assert "|tok:13a|" in figures["bleu_signature"]


@pytest.mark.parametrize("kind", ["word_punctuation", "bpe", "character"])
@pytest.mark.parametrize("lower", [False, True])
def test_references_are_written_as_the_tokenizer_writes(kind, lower):
  """A model that is right is right, whatever marks and capitals there were."""
  references = ["Hello, world!  It's 3.5.", "No (b) here"]
  kind = TOKENIZERS[kind]
  words = kind.train(references, 300, 1, lower)
  written = [words.decode(words.encode(text).tolist()) for text in references]
  assert [words.normalize(text) for text in references] == written
  metrics = "bleu,chrf,exact_match,token_error_rate"
  others = [[text] for text in references]
  _, figures = judged(metrics, written, others, kind, lower)
  assert figures["bleu"] == pytest.approx(100)
  assert figures["exact_match"] == 1 and figures["token_error_rate"] == 0
  assert words.normalize("A, ~") == {
    ("word_punctuation", False): "A , ~",
    ("word_punctuation", True): "a , ~",
  }.get((kind.kind, lower), "a, ~" if lower else "A, ~")


def test_rouge_is_that_of_rouge_score():
  rng = np.random.default_rng(0)
  scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
  words = ["The", "a", "cat,", "cat", "dog-dog", "12", "x_y", "It's"]
  for _ in range(50):
    text, *others = (
      " ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(3)
    )
    ours = rouge(text, others)
    for kind, value in ours.items():
      theirs = [scorer.score(o, text)[kind].fmeasure for o in others]
      assert value == pytest.approx(max(theirs), abs=1e-9)
  _, figures = judged("rouge")
  assert 0 < figures["rouge2"] < figures["rouge1"] < 1


def test_errors_are_counted_to_the_nearest_reference():
  _, figures = judged("exact_match,token_error_rate")
  assert figures["exact_match"] == pytest.approx(1 / 3)
  # one of 7 words, none of 3, one ("today") of "it rains ."
  assert figures["token_error_rate"] == pytest.approx(2 / (7 + 3 + 3))


def test_the_edit_distance_is_the_least_number_of_changes():
  @functools.cache
  def least(a, b):
    if not a or not b:
      return len(a) + len(b)
    return min(
      least(a[1:], b) + 1,
      least(a, b[1:]) + 1,
      least(a[1:], b[1:]) + (a[0] != b[0]),
    )

  rng = np.random.default_rng(0)
  for _ in range(300):
    a, b = (tuple(rng.integers(0, 3, rng.integers(0, 7))) for _ in range(2))
    assert edit_distance(a, b) == least(a, b)


def test_all_metrics_have_the_default_names():
  chosen = defaults.get_config(model="recurrent_seq2seq").seq2seq.metrics
  assert set(chosen.split(",")) <= METRICS.keys()
