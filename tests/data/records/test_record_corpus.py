# SPDX-License-Identifier: Apache-2.0
import csv
import dataclasses
import json

import numpy as np
import pytest

from lmjax.config.finalize import finalize
from lmjax.data import vocabularies
from lmjax.data.records import record_corpus
from lmjax.data.records.labels import Labels
from lmjax.data.records.record_corpus import RecordCorpus
from lmjax.data.records.schemas.schema import fingerprint
from lmjax.data.tokenizers import SPECIALS, ByteTokenizer, WordTokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UserError
from lmjax.task_specs import build
from tests.helpers.configs import table_config

TEXTS = [f"{'good' if n % 2 else 'bad'} film {n}" for n in range(200)]
LINES = "".join(f"{text}\t{text.split()[0]}\n" for text in TEXTS)


def corpus_config(path, **changes):
  """Return a config; changes have __ for the dots of keys."""
  changes = {key.replace("__", "."): value for key, value in changes.items()}
  small = {"data.tokenizer": "word", "data.batch_size": 4}
  return finalize(table_config(path, **small | changes))


def open_corpus(folder, text=LINES, known=None, **changes) -> RecordCorpus:
  """Open a corpus of one file."""
  path = folder / "a.tsv"
  if text is not None:
    path.write_text(text)
  changes = {f"data__{key}": value for key, value in changes.items()}
  config = corpus_config(path, **changes)
  return build.open_corpus(config, known, {}, folder / "cache")


def texts_of(corpus, split) -> list[str]:
  return [row["text"] for _, row in corpus.rows(split)]


def decoded(corpus, split) -> list[str]:
  """The texts that a split's batches hold, in their order."""
  tokenizer = corpus.tokenizer.tokenizers["text"]
  batches, found = corpus.eval_batches(split), []
  for index in range(len(batches)):
    batch = batches[index]
    for row in np.flatnonzero(batch["weights"]):
      found.append(tokenizer.decode(batch["inputs"][row][batch["mask"][row]]))
  return found


def test_splits_by_ratio_are_disjoint_and_together_everything(tmp_path):
  corpus = open_corpus(tmp_path, valid_fraction=0.2, test_fraction=0.3)
  parts = [texts_of(corpus, split) for split in ("train", "valid", "test")]
  assert sorted(sum(parts, [])) == sorted(TEXTS)
  shares = [len(part) / len(TEXTS) for part in parts]
  np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=0.1)


def test_the_same_input_is_on_the_same_side_whatever_its_label(tmp_path):
  twice = LINES + LINES.replace("\tgood", "\tfine").replace("\tbad", "\tpoor")
  corpus = open_corpus(tmp_path, twice)
  parts = [texts_of(corpus, split) for split in ("train", "valid", "test")]
  assert all(len(part) == 2 * len(set(part)) for part in parts)


def test_files_are_splits_and_what_is_missing_is_held_out(tmp_path):
  for name in ("train", "test"):
    lines = [f"{name} {n}\t{n % 2}\n" for n in range(50)]
    (tmp_path / f"{name}.tsv").write_text("".join(lines))
  config = corpus_config(
    tmp_path, data__split_by="name", data__valid_fraction=0.2
  )
  corpus = build.open_corpus(config, None, {}, tmp_path / "cache")
  train, valid, test = (
    texts_of(corpus, split) for split in ("train", "valid", "test")
  )
  assert len(test) == 50 and all(text.startswith("test") for text in test)
  assert sorted(train + valid) == sorted(f"train {n}" for n in range(50))
  assert 3 <= len(valid) <= 20


def test_a_share_of_train_is_inside_a_larger_one_and_leaves_valid_alone(
  tmp_path,
):
  whole = open_corpus(tmp_path)
  half, quarter = (
    open_corpus(tmp_path, train_fraction=share) for share in (0.5, 0.25)
  )
  train, some, few = (set(texts_of(c, "train")) for c in (whole, half, quarter))
  assert few < some < train and 0.3 < len(some) / len(train) < 0.7
  assert texts_of(half, "valid") == texts_of(whole, "valid")
  changes = dict(data__train_fraction=0.5, seed=1)
  config = corpus_config(tmp_path / "a.tsv", **changes)
  other = build.open_corpus(config, None, {}, tmp_path / "cache")
  assert set(texts_of(other, "train")) not in (some, train)
  vocabularies = {c.tokenizer.fingerprint for c in (whole, half, other)}
  assert len(vocabularies) == 1  # a label may be in the other half alone


def test_a_split_that_is_not_there_is_a_sentence(tmp_path):
  corpus = open_corpus(tmp_path, valid_fraction=0.0)
  with pytest.raises(
    UserError, match="no records in split valid; set data.valid_fraction"
  ):
    corpus.eval_batches("valid")


def test_a_split_without_a_record_is_a_sentence(tmp_path):
  with pytest.raises(UserError, match="in split train; give more records"):
    open_corpus(tmp_path, "").describe()
  broken = open_corpus(tmp_path, "one\n", malformed="skip")
  with pytest.raises(UserError, match=r"1 were skipped, as .*a.tsv:1: data.co"):
    broken.describe()


def test_batches_hold_the_records_of_their_split(tmp_path):
  corpus = open_corpus(tmp_path)
  known = set(corpus.tokenizer.tokenizers["text"].tokens)
  wanted = [
    " ".join(word if word in known else "<unk>" for word in text.split())
    for text in texts_of(corpus, "valid")
  ]
  assert sorted(decoded(corpus, "valid")) == sorted(wanted)
  batch = corpus.train_batches()[0]
  names = corpus.tokenizer.labels["label"].names
  tokenizer = corpus.tokenizer.tokenizers["text"]
  for row in range(4):
    first = tokenizer.decode(batch["inputs"][row, :1])
    assert names[batch["targets"][row]] == first


@pytest.mark.parametrize("header", [False, True])
def test_the_same_records_make_the_same_batches_in_any_format(tmp_path, header):
  rows = [
    (f'{"good" if n % 2 else "bad"} "film", {n}', str(n % 2)) for n in range(50)
  ]
  columns = ("text", "label") if header else ("0", "1")
  head = [columns] if header else []
  (tmp_path / "a.tsv").write_text(
    "".join("\t".join(row) + "\n" for row in [*head, *rows])
  )
  with open(tmp_path / "a.csv", "w", newline="") as file:
    csv.writer(file).writerows([*head, *rows])
  with open(tmp_path / "a.jsonl", "w") as file:
    for text, label in rows:
      record = {columns[0]: text, columns[1]: int(label)}
      file.write(json.dumps(record) + "\n")
  found = {}
  for source in ("tsv", "csv", "jsonl"):
    config = corpus_config(
      tmp_path / f"a.{source}",
      data__source=source,
      data__header=header and source != "jsonl",
      data__columns__text=columns[0],
      data__columns__label=columns[1],
    )
    corpus = build.open_corpus(config, None, {}, tmp_path / "cache")
    found[source] = corpus.train_batches()[2]
    assert found[source]["weights"].sum() == 4
  for name, values in found["tsv"].items():
    np.testing.assert_array_equal(values, found["csv"][name])
    np.testing.assert_array_equal(values, found["jsonl"][name])


MALFORMED = "good one\tgood\n\tgood\nbad\nbad two\tbad\n\tgood\n"


def test_a_malformed_record_is_refused_by_file_and_line(tmp_path):
  changes = dict(valid_fraction=0.0, test_fraction=0.0)
  mend = "; correct the record or set data.malformed=skip"
  for text, wanted in (
    (MALFORMED, "2: its text is empty"),
    ("one\tgood\nbad\n", "2: it has 1 column, and .*a.tsv:1 has 2"),
    ("one\tgood\ntwo\t\n", "2: its label is empty"),
  ):
    corpus = open_corpus(tmp_path, text, **changes)
    with pytest.raises(UserError, match=f"a.tsv:{wanted}{mend}"):
      corpus.describe()


def test_malformed_records_are_skipped_and_named(tmp_path, monkeypatch):
  changes = dict(valid_fraction=0.0, test_fraction=0.0, malformed="skip")
  corpus = open_corpus(tmp_path, MALFORMED, **changes)
  assert decoded(corpus, "train") == ["good one", "bad two"]
  assert corpus.tokenizer.labels["label"].names == ("bad", "good")
  summary = corpus.summary("train")
  assert "train: 2 rows, 3 skipped, 0 truncated" in summary
  path = tmp_path / "a.tsv"
  for line in ("2: its text is empty", "3: it has 1", "5: its text is empty"):
    assert f"  skipped {path}:{line}" in summary
  monkeypatch.setattr(record_corpus, "NAMED", 1)
  many = open_corpus(tmp_path, MALFORMED + "x\n", **changes)
  summary = many.summary("train")
  assert summary.count("  skipped") == 1 and "  and 3 more" in summary


def test_a_wrong_column_is_one_sentence_with_those_that_there_are(tmp_path):
  def message(text, **changes):
    corpus = open_corpus(tmp_path, text, **changes)
    with pytest.raises(UserError) as caught:
      corpus.describe()
    return str(caught.value)

  columns = {"columns__text": "body"}
  assert message("text\tlabel\na\tb\n", header=True, **columns).endswith(
    "a.tsv:2: data.columns.text=body is not one of its columns, 0, 1, text, "
    "label (name one of these); correct the record or set data.malformed=skip."
  )
  assert "0, 1 (name one of these, or set data.header=True if" in message(
    "a\tb\n", **columns
  )


def test_an_unseen_label_is_named_with_its_place(tmp_path):
  (tmp_path / "train.tsv").write_text("one\ta\ntwo\tb\n")
  (tmp_path / "valid.tsv").write_text("one\ta\n\ntwo\tc\n")
  for malformed in ("error", "skip"):
    config = corpus_config(
      tmp_path, data__split_by="name", data__malformed=malformed
    )
    corpus = build.open_corpus(config, None, {}, tmp_path / "cache")
    wanted = "valid.tsv:3: the label 'c' does not occur in the split train"
    with pytest.raises(UserError, match=wanted):
      corpus.eval_batches("valid")


def test_long_texts_are_cut_and_counted(tmp_path):
  changes = dict(seq_len=3, valid_fraction=0.0, test_fraction=0.0)
  text = "a b c d e\tx\na b c\ty\na b c d\tx\n"
  corpus = open_corpus(tmp_path, text, **changes)
  assert decoded(corpus, "train") == ["a b c"] * 3
  assert "3 rows, 0 skipped, 2 truncated to data.seq_len" in corpus.summary(
    "train"
  )


def test_a_split_is_encoded_once(tmp_path, monkeypatch):
  first = open_corpus(tmp_path)
  batch = first.train_batches()[3]
  calls = []
  encode = WordTokenizer.encode
  monkeypatch.setattr(
    WordTokenizer, "encode", lambda *a: calls.append(1) or encode(*a)
  )
  again = open_corpus(tmp_path, None, first.tokenizer)
  np.testing.assert_array_equal(
    again.train_batches()[3]["inputs"], batch["inputs"]
  )
  assert again.summary("train") == first.summary("train") and not calls
  assert isinstance(again.train_batches()._examples.values["inputs"], np.memmap)


@pytest.mark.parametrize(
  "changes",
  [
    dict(seq_len=2),
    dict(train_fraction=0.9),
    dict(lower_case=True),
    dict(min_freq=2),
    dict(valid_fraction=0.2),
    dict(columns__text="1"),
    dict(malformed="skip"),
    dict(text=LINES + "one more\tgood\n"),
  ],
)
def test_whatever_decides_the_examples_encodes_them_anew(tmp_path, changes):
  def folders():
    return {path.name for path in (tmp_path / "cache" / "records").iterdir()}

  open_corpus(tmp_path).train_batches()
  (first,) = folders()
  open_corpus(tmp_path, **changes).train_batches()
  assert len(folders()) == 2


def test_labels_of_another_column_are_encoded_anew(tmp_path):
  text = "".join(f"film {n}\t{n % 2}\t{1 - n % 2}\n" for n in range(50))
  one, two = (
    open_corpus(tmp_path, text, columns__label=column) for column in "12"
  )
  assert one.tokenizer.fingerprint == two.tokenizer.fingerprint
  one, two = (corpus.train_batches()[0]["targets"] for corpus in (one, two))
  np.testing.assert_array_equal(one, 1 - two)


def test_an_encoding_that_was_cut_off_leaves_nothing(tmp_path):
  text = LINES + "unlabelled\t\n"
  with pytest.raises(UserError, match="a.tsv:201: its label is empty"):
    open_corpus(tmp_path, text, valid_fraction=0.0).train_batches()
  assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_schema_is_another_if_a_field_is(tmp_path):
  corpus = open_corpus(tmp_path)
  schema = corpus.schema
  assert fingerprint(schema) == fingerprint(open_corpus(tmp_path).schema)
  other = dataclasses.replace(schema, separator=";")
  assert fingerprint(other) != fingerprint(schema)


def test_what_is_said_of_a_corpus_changes_with_its_records(tmp_path):
  prints = open_corpus(tmp_path).fingerprints
  assert prints == open_corpus(tmp_path, None).fingerprints
  assert len(set(prints.values())) == 3
  other = open_corpus(tmp_path, LINES + "more\tgood\n").fingerprints
  assert not set(other.values()) & set(prints.values())


def test_tokens_are_counted_over_train(tmp_path):
  changes = dict(valid_fraction=0.0, test_fraction=0.0)
  corpus = open_corpus(tmp_path, "a b a\tx\nb c\ty\n", **changes)
  names = corpus.text_tokenizer.names()
  counted = dict(zip(names, corpus.counts().tolist(), strict=True))
  zero = dict.fromkeys(SPECIALS, 0)
  assert counted == zero | dict(a=2, b=2, c=1)


def test_a_template_has_the_shapes_of_a_batch_and_needs_no_data(tmp_path):
  corpus = open_corpus(tmp_path)
  batch, known = corpus.train_batches()[0], corpus.tokenizer
  (tmp_path / "a.tsv").unlink()
  example_batch = open_corpus(tmp_path, None, known).example_batch
  assert example_batch.keys() == batch.keys()
  for name, values in batch.items():
    assert example_batch[name].dtype == values.dtype
    assert example_batch[name].ndim == values.ndim
    assert len(example_batch[name]) == len(values)


def test_labels_are_numbered_by_the_alphabet():
  labels = Labels.train(["b", "a", "c", "a"])
  assert labels.names == ("a", "b", "c") and len(labels) == 3
  assert [labels[name] for name in "cab"] == [2, 0, 1]
  assert "a" in labels and "d" not in labels


def test_vocabularies_are_loaded_as_they_were_saved(tmp_path):
  saved = Vocabularies(
    dict(
      text=WordTokenizer.train(["é b b"], 0, 1, lower_case=False),
      other=ByteTokenizer().with_special_tokens(["<mark>"]),
    ),
    dict(label=Labels(["b", "a"])),
  )
  saved.save(tmp_path / "v.json")
  loaded = vocabularies.load(tmp_path / "v.json")
  assert loaded.fingerprint == saved.fingerprint
  assert loaded.labels["label"].names == ("b", "a")
  assert loaded.tokenizers["text"].names() == saved.tokenizers["text"].names()
  assert loaded.tokenizers["other"].special_tokens == ("<mark>",)
  for change in (
    Vocabularies(saved.tokenizers, dict(label=Labels(["a", "b"]))),
    Vocabularies(dict(text=saved.tokenizers["text"]), saved.labels),
  ):
    assert change.fingerprint != saved.fingerprint


def test_a_single_tokenizer_is_loaded_too(tmp_path):
  ByteTokenizer().save(tmp_path / "t.json")
  assert isinstance(vocabularies.load(tmp_path / "t.json"), ByteTokenizer)


@pytest.mark.parametrize(
  "text", ["{", "[]", "{}", json.dumps({"kind": "fields"}), '{"kind": "x"}']
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, text):
  (tmp_path / "v.json").write_text(text)
  with pytest.raises(UserError, match="v.json is not a tokenizer of lmjax"):
    vocabularies.load(tmp_path / "v.json")
