# SPDX-License-Identifier: Apache-2.0
"""The fields of a dataclass as flags, by their names and types."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any

from absl import flags

# Type of a field → what defines its flag.
_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}
_DEFINE_REPEATED = {
  int: flags.DEFINE_multi_integer,
  float: flags.DEFINE_multi_float,
  str: flags.DEFINE_multi_string,
}


def define_flags(
  kind: type,
  flag_values: flags.FlagValues = flags.FLAGS,
  **defaults: Any,
) -> Callable[[], Any]:
  """Define a flag for each field; return what makes the dataclass of them.

  Args:
    kind: a dataclass whose fields are numbers, strings, tuples of them, or
      None; each has a `help` in its metadata. A tuple's flag may be given
      several times.
    flag_values: where flags are defined.
    **defaults: of fields, where a command has others.
  """
  kinds, found = typing.get_type_hints(kind), {}
  for field in dataclasses.fields(kind):
    default = defaults.get(field.name, field.default)
    found[field.name] = _define(field, kinds[field.name], default, flag_values)

  def read() -> Any:
    return kind(**{name: read() for name, read in found.items()})

  return read


def _define(
  field: dataclasses.Field,
  kind: Any,
  default: Any,
  flag_values: flags.FlagValues,
) -> Callable[[], Any]:
  """Define the flag of a field; return what reads it."""
  name, text = field.name, field.metadata["help"]
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    kind = next(x for x in typing.get_args(kind) if x is not types.NoneType)
  if typing.get_origin(kind) is not tuple:
    flag = _DEFINE[kind](name, default, text, flag_values=flag_values)
    return lambda: flag.value
  define = _DEFINE_REPEATED[typing.get_args(kind)[0]]
  text = f"{text} May be repeated."
  flag = define(name, list(default or ()), text, flag_values=flag_values)
  return lambda: tuple(flag.value or ())
