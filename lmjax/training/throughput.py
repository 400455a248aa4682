# SPDX-License-Identifier: Apache-2.0
"""How well the hardware is used."""

import flax.linen as nn
import jax

from lmjax.platform import peak_flops


class Throughput:
  """Turn tokens per second into what users compare.

  Model FLOPs use (MFU; Chowdhery et al. 2022, arXiv:2204.02311) counts the
  matmuls that the model needs, backward as twice the forward, not those that
  rematerialisation repeats. It is left out where the peak is not known, and of
  models that count none.

  Args:
    model: gives `flops_per_token(window)` of one forward pass.
    seq_len: length of a row.
    num_devices: number of devices.
  """

  def __init__(self, model: nn.Module, seq_len: int, num_devices: int):
    self._flops = 3 * model.flops_per_token(seq_len)
    peak = peak_flops(jax.devices()[0].device_kind, str(model.dtype))
    self._peak = peak and self._flops and peak * num_devices

  def __call__(self, tokens_per_second: float) -> dict[str, float]:
    """Return "tokens_per_second", and "mfu" between 0 and 1 if known."""
    record = {"tokens_per_second": tokens_per_second}
    if self._peak:
      record["mfu"] = tokens_per_second * self._flops / self._peak
    return record
