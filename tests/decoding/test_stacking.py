# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.tokenizers import ByteTokenizer
from lmjax.decoding.logits_processors import Temperature, TopK, TopP, chain
from lmjax.decoding.logits_processors.stacking import kind, stack
from lmjax.generation.sampling_params import SamplingParams

B, V = 3, 11
EACH = [(0.5, 7, 0.9), (1.5, 6, 0.3), (1.0, 5, 0.6)]


def test_stacked_filters_do_to_each_row_what_its_own_does():
  logits_BV = 2 * jax.random.normal(jax.random.key(0), (B + 1, V))
  own = [(Temperature(t), TopK(k), TopP(p)) for t, k, p in EACH]
  together = chain(stack(own, rows=B + 1))(logits_BV)
  for row, filters in enumerate([*own, own[0]]):
    alone = chain(filters)(logits_BV[row : row + 1])[0]
    np.testing.assert_array_equal(together[row], alone)


def test_numbers_alone_may_differ_within_a_kind():
  tokenizer = ByteTokenizer()

  def kind_of(**settings):
    return kind(SamplingParams(**settings).logits_processors(tokenizer))

  usual = kind_of(temperature=0.5, top_p=0.5)
  assert usual == kind_of(temperature=0.7, top_p=0.9)
  assert usual != kind_of(temperature=0.5)
  assert usual != kind_of(temperature=0.0, top_p=0.5)
  assert kind(TopK(3)) == kind(TopK(4)) != kind(TopK(5))


@pytest.mark.parametrize("other, same", [((1.0, 2.0), True), ((1, 3), False)])
def test_arrays_are_shared_and_not_stacked(other, same):
  table, filters = jnp.array([1.0, 2.0]), Temperature(jnp.array(other))
  assert (kind(Temperature(table)) == kind(filters)) == same
  if same:
    stacked = stack([Temperature(table), filters], rows=2)
    np.testing.assert_array_equal(stacked.temperature, table)
