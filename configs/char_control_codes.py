# SPDX-License-Identifier: Apache-2.0
"""A character LSTM that writes what its control code says.

Texts start with a learned token for their kind, as in CTRL (Keskar et al.
2019, arXiv:1909.05858): here the package of the standard library that a module
is of.

    python scripts/sample.py --workdir=runs/a --code=email --prompt='def '

For own texts, a folder each kind: --config.data.source=text
--config.data.path='books/*/*.txt'. For records, of which a field is the kind:
--config.data.source=jsonl --config.objective.control_code_from=author.
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

char_lstm = load_neighbor(__file__, "char_lstm.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = char_lstm.get_config()
  config.task = "control_codes"
  config.data.source = "python_source"
  config.data.order = "stateless"
  config.data.seq_len = 64
  config.train.num_steps = 1500
  config.preview.prompt = "def "
  config.preview.control_code = "email"
  return config
