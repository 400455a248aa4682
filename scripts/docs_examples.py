# SPDX-License-Identifier: Apache-2.0
"""An extension of the API pages: examples in docstrings become code blocks.

Markdown would render lines that start with `>>>` as a quotation.
"""

import griffe


class Examples(griffe.Extension):
  """Put each `>>>` example of a docstring between code fences."""

  def on_instance(self, *, obj: griffe.Object, **options: object) -> None:
    """Rewrite the docstring of an object that was parsed."""
    del options
    if obj.docstring:
      obj.docstring.value = fence(obj.docstring.value)


def fence(text: str) -> str:
  r"""Fence the examples of a text.

  >>> fence("One plus one.\n\n>>> 1 + 1\n2\n\nThe end.")
  'One plus one.\n\n```python\n>>> 1 + 1\n2\n```\n\nThe end.'
  """
  lines, is_open, indent = [], False, ""
  for line in text.splitlines():
    if not is_open and line.lstrip().startswith(">>> "):
      is_open, indent = True, line[: len(line) - len(line.lstrip())]
      lines.append(f"{indent}```python")
    elif is_open and not line.strip():
      is_open = False
      lines.append(f"{indent}```")
    lines.append(line)
  if is_open:
    lines.append(f"{indent}```")
  return "\n".join(lines)
