# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest

from lmjax.training.writers import MetricWriter


def test_numbers_that_are_not_finite_are_null_and_lines_are_short(
  tmp_path, capsys
):
  path = tmp_path / "metrics.jsonl"
  record = dict(loss=math.inf, nats=math.nan, large=1e304, tokens=12345678.0)
  for step in (1, 2):  # a second writer reads what the first one wrote
    writer = MetricWriter(path, tmp_path / "events", step - 1)
    writer.write(step, "valid", record)
    writer.close()
  for step, line in enumerate(path.read_text().splitlines(), start=1):
    stored = json.loads(line, parse_constant=pytest.fail)
    expected = dict(loss=None, nats=None, large=1e304, tokens=12345678.0)
    assert stored == dict(step=step, split="valid", **expected)
  assert step == 2
  shown = capsys.readouterr().err.splitlines()[0]
  assert shown.endswith("loss inf  nats nan  large 1e+304  tokens 12,345,678")
