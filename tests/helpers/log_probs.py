# SPDX-License-Identifier: Apache-2.0
"""Scores of whole sequences, without a cache."""

import functools

import jax


@functools.partial(jax.jit, static_argnums=0)
def full_logits(model, variables, tokens, carry=None, resets=None, **options):
  """Return the logits after each token, and the carry."""
  hidden, carry = model.apply(variables, tokens, carry, resets, **options)
  return model.apply(variables, hidden, method="logits"), carry


def full_log_probs(model, variables, tokens, **options):
  """Return the log-probabilities of all tokens after each token."""
  logits, _ = full_logits(model, variables, tokens, **options)
  return jax.nn.log_softmax(logits)
