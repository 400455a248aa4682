# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.rg_lru import RGLRU, RecurrentBlock

HEADS = 2


@pytest.fixture(scope="module")
def reference():
  """What transformers computes; see golden/rg_lru.py."""
  return np.load(Path(__file__).parent / "golden" / "rg_lru.npz")


def rg_lru_params(reference):
  gates = dict(input_gate="input_gate", decay_gate="recurrent_gate")
  params = {"decay_scale": reference["rg_lru.recurrent_param"]}
  for ours, theirs in gates.items():
    params[ours] = {"blocks": reference[f"rg_lru.{theirs}_weight"]}
    params[f"{ours}_bias"] = reference[f"rg_lru.{theirs}_bias"].ravel()
  return params


def test_documents_in_a_row_are_those_of_the_reference(reference):
  variables = {"params": rg_lru_params(reference)}
  z = reference["z"]
  empty = jnp.zeros((z.shape[0], z.shape[2])), jnp.zeros((z.shape[0], 1))
  h, (last, seen) = RGLRU(HEADS).apply(variables, z, empty, reference["resets"])
  np.testing.assert_allclose(h, reference["h"], atol=1e-5)
  np.testing.assert_allclose(last, reference["h"][:, -1], atol=1e-5)
  assert (seen == 1).all()


def test_the_block_is_that_of_the_reference(reference):
  names = dict(recurrent_branch="x", gelu_branch="y", out="out")
  params = {
    ours: {
      "kernel": reference[f"linear_{theirs}.weight"].T,
      "bias": reference[f"linear_{theirs}.bias"],
    }
    for ours, theirs in names.items()
  }
  taps = reference["conv_1d.weight"][:, 0, ::-1].T  # ours begin with the newest
  params["conv"] = {"taps": taps, "bias": reference["conv_1d.bias"]}
  params["rg_lru"] = rg_lru_params(reference)
  x = reference["x"]
  block = RecurrentBlock(x.shape[2], reference["z"].shape[2], HEADS, 4, 1.0)
  state = block.initial_state(x.shape[0], x.shape[2])
  y, _ = block.apply({"params": params}, x, state, None)
  np.testing.assert_allclose(y, reference["y"], atol=1e-5)
