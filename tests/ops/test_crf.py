# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops import crf

B, T, C = 3, 4, 5
LENGTHS = (4, 2, 1)


def example(dtype=np.float32, scale=1.0):
  rng = np.random.default_rng(0)
  scores = scale * rng.normal(size=(B, T, C)).astype(dtype)
  transitions = scale * rng.normal(size=(C + 1, C + 1)).astype(dtype)
  mask = np.arange(T) < np.array(LENGTHS)[:, None]
  return scores, mask, transitions


def paths(scores, transitions, length):
  """Score all paths of one text, one by one."""
  table = {}
  for path in itertools.product(range(C), repeat=length):
    edges = zip((C, *path), (*path, C), strict=True)
    table[path] = sum(transitions[edge] for edge in edges)
    table[path] += sum(scores[t, tag] for t, tag in enumerate(path))
  return table


def brute_force():
  scores, _, transitions = example(np.float64)
  return [
    paths(scores[row], transitions, length)
    for row, length in enumerate(LENGTHS)
  ]


def test_the_partition_is_the_sum_over_all_paths():
  scores, mask, transitions = example()
  found = jax.jit(crf.log_partition)(scores, mask, transitions)
  wanted = [np.log(sum(map(np.exp, p.values()))) for p in brute_force()]
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_path_scores_what_it_passes():
  scores, mask, transitions = example()
  tags = np.random.default_rng(1).integers(0, C, (B, T))
  found = crf.path_score(scores, tags, mask, transitions)
  wanted = [
    table[tuple(tags[row, :length])]
    for row, (table, length) in enumerate(
      zip(brute_force(), LENGTHS, strict=True)
    )
  ]
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_marginals_add_up_the_paths_through_a_tag():
  scores, mask, transitions = example()
  found = jax.jit(crf.marginals)(scores, mask, transitions)
  wanted = np.zeros((B, T, C))
  for row, table in enumerate(brute_force()):
    total = sum(map(np.exp, table.values()))
    for path, score in table.items():
      wanted[row, range(len(path)), path] += np.exp(score) / total
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_marginals_of_a_long_text_sum_to_one():
  scores = jax.random.normal(jax.random.key(0), (2, 2000, C)) * 3
  transitions = jax.random.normal(jax.random.key(1), (C + 1, C + 1))
  mask = np.arange(2000) < np.array([[2000], [1500]])
  found = jax.jit(crf.marginals)(scores, mask, transitions)
  np.testing.assert_allclose(found.sum(axis=-1), mask, atol=1e-6)


def test_viterbi_finds_the_best_path():
  scores, mask, transitions = example()
  found = jax.jit(crf.viterbi)(scores, mask, transitions)
  for row, table in enumerate(brute_force()):
    best = max(table, key=table.get)
    assert tuple(found[row, : len(best)]) == best
    assert set(map(int, found[row, len(best) :])) <= {best[-1]}


def plain(scores, mask, transitions):
  """The same sum, differentiated by JAX, without masks."""
  total = 0.0
  for row, length in enumerate(LENGTHS):
    sums = transitions[-1, :-1] + scores[row, 0]
    for t in range(1, length):
      joined = sums[:, None] + transitions[:-1, :-1] + scores[row, t][None]
      sums = jax.nn.logsumexp(joined, axis=0)
    total += (row + 1) * jax.nn.logsumexp(sums + transitions[:-1, -1])
  return total


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_gradient_is_autodiff(scale):
  with jax.enable_x64(True):
    scores, mask, transitions = example(np.float64, scale)
    weights = np.arange(1, B + 1)

    def ours(scores, transitions):
      return (crf.log_partition(scores, mask, transitions) * weights).sum()

    def theirs(scores, transitions):
      return plain(scores, mask, transitions)

    grads = [
      jax.jit(jax.grad(f, argnums=(0, 1)))(scores, transitions)
      for f in (ours, theirs)
    ]
    for mine, other in zip(*grads, strict=True):
      np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_loss_is_marginals_without_the_tags():
  scores, mask, transitions = map(jnp.array, example())
  tags = np.random.default_rng(1).integers(0, C, (B, T))

  def loss(scores):
    score = crf.path_score(scores, tags, mask, transitions)
    return jnp.sum(crf.log_partition(scores, mask, transitions) - score)

  indicators = jax.nn.one_hot(tags, C) * mask[..., None]
  wanted = crf.marginals(scores, mask, transitions) - indicators
  found = jax.jit(jax.grad(loss))(scores)
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_padding_changes_nothing():
  scores, mask, transitions = example()
  tags = np.zeros((B, T), np.int32)
  padded = np.concatenate([scores, np.full((B, 3, C), 9.0, np.float32)], axis=1)
  wider = np.pad(mask, ((0, 0), (0, 3)))
  tags_wider = np.pad(tags, ((0, 0), (0, 3)), constant_values=2)
  for function in (crf.log_partition, crf.marginals, crf.viterbi):
    found = jax.jit(function)(padded, wider, transitions)
    wanted = jax.jit(function)(scores, mask, transitions)
    if found.ndim > 1:
      found = found[:, :T]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
  np.testing.assert_allclose(
    crf.path_score(padded, tags_wider, wider, transitions),
    crf.path_score(scores, tags, mask, transitions),
    rtol=1e-6,
  )


def test_what_is_not_allowed_has_no_share():
  scores, mask, transitions = example()
  allowed = np.ones((C + 1, C + 1), bool)
  allowed[0, 1] = allowed[C, 2] = allowed[3, C] = False
  constrained = crf.constrained(transitions, allowed)
  wanted = []
  for row, length in enumerate(LENGTHS):
    table = paths(scores[row], transitions, length)
    for path in list(table):
      if not all(allowed[e] for e in zip((C, *path), (*path, C), strict=True)):
        del table[path]
    best = max(table, key=table.get)
    found = crf.viterbi(scores, mask, constrained)[row, :length]
    assert tuple(found) == best
    wanted.append(np.log(sum(map(np.exp, table.values()))))
  found = crf.log_partition(scores, mask, constrained)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_low_precision_is_summed_in_float32():
  scores, mask, transitions = example()
  half = jnp.array(scores, jnp.bfloat16)
  found = crf.log_partition(half, mask, transitions)
  assert found.dtype == jnp.float32
  wanted = crf.log_partition(half.astype(jnp.float32), mask, transitions)
  np.testing.assert_array_equal(found, wanted)
