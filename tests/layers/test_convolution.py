# SPDX-License-Identifier: Apache-2.0
import numpy as np

from lmjax.layers.convolution import empty_past, normalized_kernel, steps_back

B, T, D, SIZE = 2, 9, 3, 4


def test_no_one_looks_across_the_start_of_a_document_whatever_the_pieces():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(B, T, D)).astype(np.float32)
  resets = rng.random((B, T)) < 0.3
  expected = np.zeros((SIZE, B, T, D))
  for b in range(B):
    for t in range(T):
      for back in range(min(SIZE, t + 1)):
        if not resets[b, t - back + 1 : t + 1].any():
          expected[back, b, t] = x[b, t - back]
  past, pieces, start = empty_past(B, SIZE, D), [], 0
  for time in (1, 1, 5, 2):
    piece = slice(start, start + time)
    views, past = steps_back(x[:, piece], past, resets[:, piece])
    pieces.append(np.stack(views))
    start += time
  np.testing.assert_allclose(np.concatenate(pieces, axis=2), expected, 1e-6)


def test_the_columns_of_a_kernel_have_lengths_of_their_own():
  rng = np.random.default_rng(0)
  kernel, scale = rng.normal(size=(4, 3)), np.array([1.0, 2.0, 0.5])
  normalized = normalized_kernel(kernel, scale)
  lengths = np.linalg.norm(normalized, axis=0)
  np.testing.assert_allclose(lengths, scale, rtol=1e-6)
  doubled = normalized_kernel(2 * kernel, scale)
  np.testing.assert_allclose(normalized, doubled, rtol=1e-6)
