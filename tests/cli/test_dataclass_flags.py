# SPDX-License-Identifier: Apache-2.0
"""Whatever a choice is called, it is a flag."""

import dataclasses

import pytest
from absl import flags

from lmjax.cli.dataclass_flags import define_flags
from lmjax.errors import UsageError
from lmjax.generation.sampling_params import SamplingParams


def setting(default):
  return dataclasses.field(default=default, metadata=dict(help="What it is."))


@dataclasses.dataclass(frozen=True)
class Choices:
  """One field of every type."""

  count: int = setting(2)
  share: float = setting(0.5)
  pattern: str = setting("")
  bias: tuple[float, ...] = setting(())
  words: tuple[str, ...] = setting(("a",))
  ids: tuple[int, ...] = setting(())
  limit: float | None = setting(None)
  greedy: bool = setting(False)


def parse(choices, arguments, **defaults):
  """Parse a command line with flags of its own."""
  values = flags.FlagValues()
  read = define_flags(choices, values, **defaults)
  values(["program", *arguments])
  return read(), values


def test_without_flags_there_are_the_defaults():
  assert parse(Choices, [])[0] == Choices()


def test_each_field_is_set_by_its_flag():
  given = "--count=3 --share=.25 --pattern=[a,b] --bias=1 --bias=-.5 --greedy"
  given += " --words=a,b --words=c --ids=7 --limit=2"
  made, values = parse(Choices, given.split())
  assert made == Choices(
    3, 0.25, "[a,b]", (1.0, -0.5), ("a,b", "c"), (7,), 2.0, True
  )
  assert "May be repeated" in values["words"].help
  assert values["count"].help == "What it is."


def test_fields_of_sampling_are_flags_and_their_limits_hold():
  names = {field.name for field in dataclasses.fields(SamplingParams)}
  made, values = parse(SamplingParams, ["--top_k=3"], temperature=0.8)
  assert made == SamplingParams(temperature=0.8, top_k=3)
  assert names <= set(values)


def test_a_wrong_value_is_a_sentence():
  with pytest.raises(UsageError, match="top_p=2.0"):
    parse(SamplingParams, ["--top_p=2"])
  with pytest.raises(flags.IllegalFlagValueError, match="--count=many"):
    parse(Choices, ["--count=many"])
