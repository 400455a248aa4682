# SPDX-License-Identifier: Apache-2.0
"""Everything that the documentation names exists: files, flags, config keys."""

import dataclasses
import re

import pytest

from lmjax.config import defaults
from lmjax.config.compatibility import flatten
from lmjax.generation.constraints.constraints import Constraints
from lmjax.generation.sampling_params import SamplingParams
from lmjax.guidance.guidance import Guidance
from lmjax.models import MODELS
from lmjax.task_specs import TASK_SPECS
from tests.docs.markdown import PAGES, ROOT, commands, inline

# Flags of other programs that pages mention.
OTHER_FLAGS = {"slow"}
# Example names in recipes and commands, which the reader creates.
EXAMPLES = re.compile(r"^(runs|data|books|FILE|FOLDER)\b")


def ids(page):
  return str(page.relative_to(ROOT))


def known_flags():
  """Return the names of all flags that commands define."""
  sources = [
    *(ROOT / "lmjax" / "cli").rglob("*.py"),
    *ROOT.glob("scripts/*.py"),
  ]
  text = "".join(path.read_text() for path in sources)
  names = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text)
  names += re.findall(r'(?:number|real|text)\(\s*"(\w+)"', text)
  for cls in (SamplingParams, Constraints, Guidance):
    names += [field.name for field in dataclasses.fields(cls)]
  limits = [f"max_{name}" for name in ("batch", "queue", "tokens", "prompt")]
  return {*names, *limits, "config", *OTHER_FLAGS}


def known_keys():
  """Return the dotted config keys of all model families and tasks."""
  keys = set()
  for model in MODELS:
    keys |= set(flatten(defaults.get_config(model=model)))
  for spec in TASK_SPECS.values():
    for section, own in spec.keys.items():
      keys |= {f"{section}.{key}" for key in own}
  return keys


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_flags_exist(page):
  text = "\n".join([*commands(page), *inline(page)])
  text = re.sub(r"pip install \S+|ruff \S+", "", text)
  used = set(re.findall(r"(?<![\w-])--([a-z]\w*)(?![\w.])", text))
  assert used <= known_flags(), used - known_flags()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_config_keys_exist(page):
  text = "\n".join([*commands(page), *inline(page)])
  used = set(re.findall(r"--config\.([\w.]+?)=", text))
  keys = known_keys()
  sections = {key.split(".")[0] for key in keys}
  for code in inline(page):
    match = re.fullmatch(r"([a-z]\w*)((?:\.[a-z]\w*)+)(=.*)?", code)
    is_file = re.search(r"\.(py|txt|md|json|sh)$", code)
    if match and match[1] in sections and not is_file:
      used.add(match[1] + match[2])
  is_section = {key.rsplit(".", 1)[0] for key in keys}
  missing = {key for key in used if key not in keys | is_section}
  assert not missing


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_exist(page):
  links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
  missing = [link for link in links if not (page.parent / link).exists()]
  words = " ".join([*commands(page), *inline(page)]).split()
  for word in words:
    word = word.removeprefix("--config=").strip("',;")
    if re.match(r"^(lmjax|scripts|configs|docs|tests)/[\w./-]+$", word):
      missing += [] if (ROOT / word).exists() else [word]
  assert not missing
