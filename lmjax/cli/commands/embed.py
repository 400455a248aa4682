# SPDX-License-Identifier: Apache-2.0
"""Show word vectors of a run or a file, or export them.

python scripts/embed.py --workdir=runs/a --nearest="list method"
python scripts/embed.py --vectors=glove.6B.50d.txt --analogy="man king woman"
python scripts/embed.py --workdir=runs/a --export=vectors.txt
"""

from absl import flags

from lmjax.data.word_vectors import check_format, name_in_file, read, write
from lmjax.errors import UsageError, check_positive
from lmjax.prediction.word_similarity import WordSpace, show
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_VECTORS = flags.DEFINE_string("vectors", None, "A file instead of a run.")
_FORMAT = flags.DEFINE_string(
  "format", "auto", "Of --vectors: word2vec, word2vec_binary, glove or auto."
)
_NEAREST = flags.DEFINE_string("nearest", "", "Words to list neighbors of.")
_ANALOGY = flags.DEFINE_multi_string(
  "analogy", [], 'What is to c as b is to a, as "a b c"; may come again.'
)
_NUMBER = flags.DEFINE_integer("number", 10, "How many words a line.")
_EXPORT = flags.DEFINE_string(
  "export", None, "A file to write; .gz if so named."
)
_EXPORT_FORMAT = flags.DEFINE_string(
  "export_format",
  "auto",
  "word2vec, word2vec_binary, glove or auto: by the name of the file.",
)


def main() -> None:
  """Print a line for each question, and write the file that is asked for."""
  check_positive(number=_NUMBER.value)
  for format in (_FORMAT.value, _EXPORT_FORMAT.value):
    if format != "auto":
      check_format(format)
  if not (_NEAREST.value or _ANALOGY.value or _EXPORT.value):
    raise UsageError("say what is wanted: --nearest, --analogy or --export.")
  analogies = [text.split() for text in _ANALOGY.value]
  for text, words in zip(_ANALOGY.value, analogies, strict=True):
    if len(words) != 3:
      raise UsageError(f'--analogy="{text}" must be three words.')
  if (_WORKDIR.value is None) == (_VECTORS.value is None):
    raise UsageError("give either --workdir or --vectors.")
  spell = str
  if _WORKDIR.value is None:
    names, vectors = read(_VECTORS.value, _FORMAT.value)
  else:
    run = Run(_WORKDIR.value, _CHECKPOINT.value)
    names, vectors = run.vectors
    spell = str.lower if run.tokenizer.lower_case else str
  space = WordSpace(names, vectors)
  for word in map(spell, _NEAREST.value.split()):
    print(space.describe(word, _NUMBER.value))
  for words in analogies:
    a, b, c = map(spell, words)
    answers = space.analogy(a, b, c, _NUMBER.value)
    print(f"{a} : {b} = {c} : {show(answers)}")
  if _EXPORT.value is not None:
    names = [name_in_file(name) for name in names]
    write(_EXPORT.value, names, vectors, _EXPORT_FORMAT.value)
