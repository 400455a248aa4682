# SPDX-License-Identifier: Apache-2.0
"""Serve a run over HTTP with the OpenAI completions API.

python scripts/serve.py --workdir=runs/a

and open http://127.0.0.1:8000/ or ask from another program:

curl http://127.0.0.1:8000/v1/completions -d '{"prompt": "The ", "n": 2}'
"""

from pathlib import Path

from absl import flags

from lmjax.cli import app
from lmjax.run import Run
from lmjax.serving.app import Limits, Service
from lmjax.serving.server import serve

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_HOST = flags.DEFINE_string(
  "host",
  "127.0.0.1",
  "Address to listen on; the default accepts local clients only.",
)
_PORT = flags.DEFINE_integer(
  "port", 8000, "Port; 0: any.", lower_bound=0, upper_bound=65535
)
_API_KEY = flags.DEFINE_string(
  "api_key", "", "API key that clients must send, if set."
)
_LIMITS = {
  name: flags.DEFINE_integer(f"max_{name}", getattr(Limits(), name), text)
  for name, text in dict(
    batch="Maximum number of texts generated at once.",
    queue="Maximum number of waiting texts; others are refused.",
    tokens="Maximum number of new tokens of a request.",
    prompt="Maximum number of tokens of a prompt.",
  ).items()
}
_WARM_UP = flags.DEFINE_integer(
  "warm_up",
  64,
  "Compile the programs of all batch sizes for this many tokens before the "
  "first request; 0 compiles on demand.",
  lower_bound=0,
)
_CACHE = app.define_cache_flags()
_INT8 = app.define_int8_flags()
flags.mark_flag_as_required("workdir")


def main() -> None:
  """Serve until a signal."""
  run = Run(_WORKDIR.value, _CHECKPOINT.value, cache=_CACHE(), **_INT8())
  limits = Limits(**{name: flag.value for name, flag in _LIMITS.items()})
  name = Path(_WORKDIR.value).resolve().name
  service = Service(run.sampler, run.variables, name, limits, _API_KEY.value)

  def prepare() -> None:
    if _WARM_UP.value:
      print(
        f"Compiling for up to {limits.batch} texts of {_WARM_UP.value} tokens; "
        "--warm_up=0 compiles on demand.",
        flush=True,
      )
      service.warm_up(_WARM_UP.value)

  serve(service, _HOST.value, _PORT.value, prepare)
