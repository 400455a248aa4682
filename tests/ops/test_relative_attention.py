# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.ops.attention_range import causal_range
from lmjax.ops.relative_attention import relative_attention, shift

B, T, S, H, K = 2, 3, 5, 2, 4


def test_shift_as_documented():
  scores = jnp.array([[[[3, 2, 1, 0], [7, 6, 5, 4]]]])
  shifted = shift(scores)[0, 0]
  np.testing.assert_array_equal(shifted[0, :3], [2, 1, 0])
  np.testing.assert_array_equal(shifted[1], [7, 6, 5, 4])


def test_scores_are_those_of_the_paper():
  """(q + u) · k + (q + v) · r(distance), one query and key at a time."""
  keys = iter(jax.random.split(jax.random.key(0), 6))
  draw = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
  q, k, value = draw(B, T, H, K), draw(B, S, H, K), draw(B, S, H, K)
  r, u, v = draw(S, H, K), draw(H, K), draw(H, K)
  places = jnp.broadcast_to(jnp.arange(S), (B, S))
  attention_range = causal_range(
    places[:, S - T :], jnp.array([[0] * 3, [1] * 3]), places
  )
  out, weights = relative_attention(q, k, value, r, u, v, attention_range)
  q, k, value, r, u, v = map(np.array, (q, k, value, r, u, v))
  for b in range(B):
    for h in range(H):
      for t in range(T):
        place = S - T + t
        scores = np.full(S, -np.inf)
        for s in range(b, place + 1):
          distance = place - s
          scores[s] = (q[b, t, h] + u[h]) @ k[b, s, h]
          scores[s] += (q[b, t, h] + v[h]) @ r[S - 1 - distance, h]
        power = np.exp(scores / K**0.5)
        expected = power / power.sum()
        np.testing.assert_allclose(weights[b, h, t], expected, atol=1e-6)
        np.testing.assert_allclose(
          out[b, t, h], expected @ value[b, :, h], atol=1e-5
        )
