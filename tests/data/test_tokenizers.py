# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.data import vocabularies
from lmjax.data.tokenizers import SPECIALS, TOKENIZERS, Tokenizer, split_text
from lmjax.errors import UserError

UNK = Tokenizer.unk_id
EOS = Tokenizer.eos_id

TEXTS = ["The cat sat.\nThe dog, too.\n", "Ünïcödé \N{SNOWMAN} and\n\n  more\n"]


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
  size = 300 if request.param == "bpe" else 0
  return TOKENIZERS[request.param].train(TEXTS, size, 1, False)


def test_decode_inverts_encode(tokenizer):
  for text in TEXTS:
    decoded = tokenizer.decode(tokenizer.encode(text))
    if tokenizer.kind == "word":  # only newlines are retained
      decoded, text = decoded.split(), text.split()
    if tokenizer.kind == "word_punctuation":  # spaces are added at punctuation
      decoded, text = ("".join(each.split()) for each in (decoded, text))
    assert decoded == text


def test_separator_is_a_space_between_words(tokenizer):
  between = " " if tokenizer.unit == "word" else ""
  assert tokenizer.separator("The", "cat") == between
  for prompt, text in (("The ", "cat"), ("", "cat"), ("a", ""), ("a", "\nb")):
    assert tokenizer.separator(prompt, text) == ""


def test_names_of_tokens_are_distinct(tokenizer):
  names = tokenizer.names()
  assert len(names) == len(set(names)) == tokenizer.vocab_size
  assert tuple(names[:4]) == SPECIALS


def test_punctuation_marks_are_tokens():
  text = "it's a `list()`, or_so.\n"
  tokenizer = TOKENIZERS["word_punctuation"].train([text], 0, 1, False)
  names = [tokenizer.names()[token] for token in tokenizer.encode(text)]
  expected = ["it's", "a", "`", "list", "(", ")", "`", ",", "or_so", "."]
  assert names == [*expected, "\n"]


def test_loads_an_equal_tokenizer(tokenizer, tmp_path):
  tokenizer.save(tmp_path / "t.json")
  loaded = vocabularies.load(tmp_path / "t.json")
  assert loaded.vocab_size == tokenizer.vocab_size
  assert loaded.fingerprint == tokenizer.fingerprint
  text = "The cat \N{SNOWMAN}, zzz"
  np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))


def test_special_tokens_follow_the_vocabulary_and_decode_to_names(
  tokenizer, tmp_path
):
  marked = tokenizer.with_special_tokens(("<mask>", "<end>"))
  mask, end = (
    marked.special_token_id("<mask>"),
    marked.special_token_id("<end>"),
  )
  assert (mask, end) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)
  assert marked.vocab_size == tokenizer.vocab_size + 2
  assert tokenizer.special_tokens == ()  # a copy has them
  text = TEXTS[0] + "<mask> <end>"
  tokens = marked.encode(text)
  assert tokens.max() < mask  # text is never encoded to one
  np.testing.assert_array_equal(tokens, tokenizer.encode(text))
  parts = marked.encode("The"), [mask], marked.encode("cat"), [end]
  shown = marked.decode(np.concatenate(parts))
  between = " " if tokenizer.unit == "word" else ""
  assert shown == between.join(["The", "<mask>", "cat", "<end>"])
  assert not marked.units()[[mask, end]].any()
  assert marked.names()[mask:] == ["<mask>", "<end>"]
  marked.save(tmp_path / "t.json")
  loaded = vocabularies.load(tmp_path / "t.json")
  assert loaded.special_tokens == marked.special_tokens
  assert loaded.fingerprint == marked.fingerprint != tokenizer.fingerprint


def test_units_sum_to_the_length_of_the_text(tokenizer):
  text = TEXTS[1]
  lengths = {
    "byte": len(text.encode()),
    "character": len(text),
    "word": len(text.split()) + text.count("\n"),
  }
  tokens = np.append(tokenizer.encode(text), EOS)  # <eos> counts 0
  assert tokenizer.units()[tokens].sum() == lengths[tokenizer.unit]


def test_text_is_not_encoded_to_special_tokens_except_unk(tokenizer):
  tokens = tokenizer.encode("a <eos> <bos> <pad>")
  assert not {0, 2, 3} & set(tokens.tolist())


def test_encoding_chunks_equals_encoding_the_text(tokenizer):
  text = "".join(
    f"line {n}\n" * 2 + "  indented\n\n" * (n % 3) for n in range(99)
  )
  parts = list(split_text(text, size=40))
  assert "".join(parts) == text and len(parts) > 5
  joined = np.concatenate([tokenizer.encode(part) for part in parts])
  np.testing.assert_array_equal(joined, tokenizer.encode(text))


def test_unknown_characters_and_words_are_unk():
  for kind in ("character", "word"):
    tokenizer = TOKENIZERS[kind].train(["a b"], 0, 1, False)
    assert tokenizer.encode("z").tolist() == [UNK]


@pytest.mark.parametrize(
  ("options", "words"),
  [((0, 1, False), "abcA"), ((6, 1, False), "ab"), ((0, 2, True), "ab")],
)
def test_vocabulary_is_limited_by_size_frequency_and_case(options, words):
  tokenizer = TOKENIZERS["word"].train(["a a a b b A c"], *options)
  assert set(tokenizer.tokens[4:]) == set(words)
  assert (UNK in tokenizer.encode(" ".join("abc"))) == ("c" not in words)


def test_lower_case_is_applied_when_encoding():
  for kind, size in (("character", 0), ("word", 0), ("bpe", 280)):
    tokenizer = TOKENIZERS[kind].train(["The cat"], size, 1, True)
    assert tokenizer.decode(tokenizer.encode("THE CAT")) == "the cat"


def test_lower_case_of_two_characters_is_one_token():
  tokenizer = TOKENIZERS["character"]([*SPECIALS, "İ".lower()], True)
  assert tokenizer.tokens_to_ids(["İ"]).tolist() == [4]


def test_bpe_has_the_requested_size_and_requires_all_bytes():
  text = " ".join(f"word{n}" for n in range(200))
  assert TOKENIZERS["bpe"].train([text], 300, 1, False).vocab_size == 300
  with pytest.raises(UserError, match="at least 260"):
    TOKENIZERS["bpe"].train([text], 100, 1, False)


def test_invalid_file_raises(tmp_path):
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(UserError, match="tokenizer.json is not a tokenizer"):
    vocabularies.load(tmp_path / "tokenizer.json")
