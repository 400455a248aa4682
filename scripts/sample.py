# SPDX-License-Identifier: Apache-2.0
"""Draw text from a run folder.

python scripts/sample.py --workdir=runs/a --prompt="The " --num_tokens=300
"""

from absl import flags

from lmjax import command_line
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run folder.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_PROMPT = flags.DEFINE_string("prompt", "\n", "Text to go on from.")
_NUM_TOKENS = flags.DEFINE_integer("num_tokens", 300, "Tokens a sample.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Number of samples.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "0: most likely only.")
_TOP_K = flags.DEFINE_integer("top_k", 0, "Choose among the k best; 0: all.")
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Choose among probability p.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed, the same text.")
_CACHE = command_line.define_cache_flags()
flags.mark_flag_as_required("workdir")


def main() -> None:
  """Print the samples, prompt included, with a line between them."""
  run = Run(_WORKDIR.value, _CHECKPOINT.value, cache=_CACHE())
  texts = run.generate(
    _PROMPT.value,
    num_tokens=_NUM_TOKENS.value,
    num_samples=_NUM_SAMPLES.value,
    temperature=_TEMPERATURE.value,
    top_k=_TOP_K.value,
    top_p=_TOP_P.value,
    seed=_SEED.value,
  )
  line = "\n" + "─" * 72 + "\n"
  print(line.join(_PROMPT.value + text for text in texts))


if __name__ == "__main__":
  command_line.run(main)
