# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.multinomial import draw


@pytest.mark.parametrize("vocab_size", [5, 256, 700])
def test_frequencies_are_those_of_the_softmax(vocab_size):
  """Pearson's chi-square stays within five standard deviations."""
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=vocab_size) * 2.0, jnp.float32)
  logits = logits.at[3].set(-jnp.inf)
  number = 200_000
  keys = jax.random.split(jax.random.key(1), number)
  chunks = keys.reshape(20, -1)
  drawn = jax.lax.map(
    lambda keys: draw(keys, jnp.broadcast_to(logits, (len(keys), vocab_size))),
    chunks,
  )
  counts = np.bincount(drawn.ravel(), minlength=vocab_size)
  expected = number * np.array(jax.nn.softmax(logits), np.float64)
  assert counts[3] == 0 and counts.sum() == number
  often = expected > 10
  chi = np.sum((counts - expected)[often] ** 2 / expected[often])
  degrees = often.sum() - 1
  assert abs(chi - degrees) < 5 * np.sqrt(2 * degrees)


def test_what_is_impossible_is_never_drawn():
  """Not even where rounding leaves the target above every running sum."""
  logits = jnp.full((4096, 300), -jnp.inf).at[:, 40:45].set(0.0)
  drawn = draw(jax.random.split(jax.random.key(0), 4096), logits)
  assert set(np.array(drawn)) == {40, 41, 42, 43, 44}
  one = jnp.full((8, 600), -jnp.inf).at[:, 599].set(-7.0)
  assert (draw(jax.random.split(jax.random.key(0), 8), one) == 599).all()


@pytest.mark.parametrize("logit", [-jnp.inf, jnp.nan])
def test_no_token_is_beyond_the_vocabulary(logit):
  """Not even where none can be drawn."""
  logits = jnp.full((8, 300), logit)
  drawn = np.array(draw(jax.random.split(jax.random.key(0), 8), logits))
  assert (drawn >= 0).all() and (drawn < 300).all()


def test_a_row_depends_on_its_own_key_alone():
  logits = jax.random.normal(jax.random.key(2), (6, 300))
  keys = jax.random.split(jax.random.key(3), 6)
  together = draw(keys, logits)
  for row in range(6):
    assert draw(keys[row : row + 1], logits[row : row + 1])[0] == together[row]
