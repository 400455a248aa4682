# SPDX-License-Identifier: Apache-2.0
"""What is learned, by name; to add a task, write its file and a line here.

A task is a frozen dataclass that keeps the contract of task.py; its fields are
filled by their names, from what the corpus offers, and from the sections of the
config that `sections_of` names.
"""

from lmjax.tasks.classification import Classification
from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.tasks.masked_lm import MaskedLM
from lmjax.tasks.matching import Matching
from lmjax.tasks.seq2seq import DenoisingSeq2Seq, Seq2Seq
from lmjax.tasks.tagging import Tagging
from lmjax.tasks.word_vectors import CBOW, GloVe, SkipGram

TASKS = {
  "language_modeling": LanguageModeling,
  "prefix_lm": LanguageModeling,
  "fill_in_the_middle": LanguageModeling,
  "control_codes": LanguageModeling,
  "masked_lm": MaskedLM,
  "span_corruption": DenoisingSeq2Seq,
  "skip_gram": SkipGram,
  "cbow": CBOW,
  "glove": GloVe,
  "classification": Classification,
  "tagging": Tagging,
  "matching": Matching,
  "seq2seq": Seq2Seq,
}
# Task → the kind of model that learns it; see LanguageModel.
KINDS = {
  "language_modeling": "decoder",
  "prefix_lm": "prefix_decoder",
  "fill_in_the_middle": "infiller",
  "control_codes": "infiller",
  "masked_lm": "encoder",
  "span_corruption": "encoder_decoder",
  "skip_gram": "word_vectors",
  "cbow": "word_vectors",
  "glove": "word_vectors",
  "classification": "text_encoder",
  "tagging": "text_encoder",
  "matching": "text_encoder",
  "seq2seq": "encoder_decoder",
}


def sections_of(task: str) -> tuple[str, ...]:
  """Name the sections of a config that hold what a task is told."""
  if KINDS[task] == "word_vectors":
    return ("loss", "word_vectors")
  if task == "classification":
    return ("loss", task, "distill")
  has_own = KINDS[task] == "text_encoder" or task == "seq2seq"
  return ("loss", task) if has_own else ("loss",)
