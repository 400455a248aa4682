# SPDX-License-Identifier: Apache-2.0
"""What tasks make of records, by task; to add one, write its file and a line.

A schema keeps the contract of schema.py; its builder gets a config and what
trains the tokenizer that the config names.
"""

from lmjax.data.records.schemas import (
  classification,
  matching,
  seq2seq,
  tagging,
)

SCHEMAS = {
  "classification": classification.build,
  "tagging": tagging.build,
  "matching": matching.build,
  "seq2seq": seq2seq.build,
}
