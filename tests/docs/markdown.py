# SPDX-License-Identifier: Apache-2.0
"""Code blocks and references of the Markdown documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [
  ROOT / "README.md",
  ROOT / "CONTRIBUTING.md",
  ROOT / "scripts" / "benchmarks" / "README.md",
  *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
  """Return the fenced code blocks of a page in a language."""
  pattern = rf"^```{language}\n(.*?)^```"
  return re.findall(pattern, page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
  """Return the commands of a page's bash blocks, continued lines joined."""
  text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
  lines = (line.strip() for line in text.splitlines())
  return [line for line in lines if line and not line.startswith("#")]


def inline(page: Path) -> list[str]:
  """Return the code spans of a page outside of its blocks."""
  text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
  return re.findall(r"`([^`\n]+)`", text)
