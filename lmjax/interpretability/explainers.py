# SPDX-License-Identifier: Apache-2.0
"""What moves a model to say what it says of a text, by task."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.interpretability.attention import read_maps
from lmjax.interpretability.attribution import (
  gradient_times_input,
  gradients,
  integrated_gradients,
  look_up,
  norms,
  reading,
)
from lmjax.interpretability.spans import readable
from lmjax.types import Array, PyTree

INTEGRATED = "integrated gradients"
SMALLEST = 1e-37  # probability whose logarithm is still a float32


@dataclasses.dataclass(frozen=True)
class Explanation:
  """Why a model says something of a text.

  Attributes:
    tokens: those that it read, written as `readable` does.
    target: the name of the label, or the next token, that is explained.
    log_prob: what the model gives it, in nats.
    blank: what it would give it if all embeddings were 0.
    attributions: by method: a number a token, float32 [T]. Those of integrated
      gradients add up to `log_prob` − `blank`.
    maps: by layer: what tokens look at; see `attention_maps`.
  """

  tokens: list[str]
  target: str
  log_prob: float
  blank: float
  attributions: dict[str, np.ndarray]
  maps: dict[str, np.ndarray]


def explain_label(
  task: Any,
  variables: PyTree,
  known: Vocabularies,
  text: str,
  target: str,
  num_points: int,
  longest: int | None,
) -> Explanation:
  """Explain the label of a text.

  Args:
    task: tells the classes of texts, as lmjax.tasks.classification does.
    variables: what it has learned.
    known: what texts and labels are written in.
    text: any.
    target: the label to explain; empty for the most likely one.
    num_points: see `integrated_gradients`.
    longest: how many tokens the model can read; None for any number.

  Raises:
    UsageError: if the text is empty or too long, or there is no such label.
  """
  tokenizer, labels = known.tokenizers["text"], known.labels["label"]
  tokens_1T = _encode(tokenizer, text, longest)
  if target and target not in labels:
    raise UsageError(
      f"target={target} is no label; choose one of {', '.join(labels.names)}."
    )
  mask_1T = np.ones(tokens_1T.shape, bool)
  batch = dict(inputs=tokens_1T, mask=mask_1T)

  def log_probs(variables: PyTree) -> Array:
    probabilities_1C = task.predict(variables, batch)["probabilities"]
    return jnp.log(jnp.maximum(probabilities_1C, SMALLEST))

  wanted = labels[target] if target else None
  return _explain(
    log_probs,
    read_maps(task.model, variables, tokens_1T, mask_1T),
    variables,
    tokenizer,
    tokens_1T,
    labels.names,
    wanted,
    num_points,
  )


def explain_next_token(
  task: Any,
  variables: PyTree,
  known: Tokenizer,
  text: str,
  target: str,
  num_points: int,
  longest: int | None,
) -> Explanation:
  """Explain the token that follows a text.

  Args:
    task: has a `model` that keeps the contract of lmjax.models.
    variables: what it has learned.
    known: what texts are written in.
    text: any.
    target: the token to explain, as text; empty for the most likely one.
    num_points: see `integrated_gradients`.
    longest: how many tokens the model can read; None for any number.

  Raises:
    UsageError: if the text is empty or too long, or the target is no token.
  """
  model, tokens_1T = task.model, _encode(known, text, longest)
  wanted = None
  if target:
    found = known.encode(target)
    if len(found) != 1 or found[0] == known.unk_id:
      raise UsageError(
        f"target={target} is no token of the vocabulary; give one."
      )
    wanted = int(found[0])

  def log_probs(variables: PyTree) -> Array:
    hidden, _ = model.apply(variables, tokens_1T)
    last = jax.tree.map(lambda leaf: leaf[:, -1:], hidden)
    logits_11V = model.apply(variables, last, method="logits")
    return jax.nn.log_softmax(logits_11V[:, 0], axis=-1)

  return _explain(
    log_probs,
    read_maps(model, variables, tokens_1T),
    variables,
    known,
    tokens_1T,
    readable(known, range(known.vocab_size)),
    wanted,
    num_points,
  )


def _encode(tokenizer: Tokenizer, text: str, longest: int | None) -> np.ndarray:
  tokens = tokenizer.encode(text)
  if not len(tokens):
    raise UsageError("the text has no token; give some text.")
  if longest and len(tokens) > longest:
    raise UsageError(
      f"the text has {len(tokens)} tokens, more than the {longest} that the "
      "model can read; give a shorter one."
    )
  return tokens[None]


def _explain(
  log_probs: Callable[[PyTree], Array],
  maps: dict[str, np.ndarray],
  variables: PyTree,
  tokenizer: Tokenizer,
  tokens_1T: np.ndarray,
  names: list[str],
  target: int | None,
  num_points: int,
) -> Explanation:
  """Explain one of several answers, the most likely unless one is named.

  Args:
    log_probs: scores the answers, [1, V].
    maps: what tokens look at.
    variables: what the model has learned.
    tokenizer: names tokens.
    tokens_1T: the text.
    names: of the answers.
    target: the number of the one that is explained.
    num_points: see `integrated_gradients`.
  """
  if target is None:
    target = int(jnp.argmax(jax.jit(log_probs)(variables)))
  x_1TE = look_up(variables["params"], tokens_1T)

  def score(variables: PyTree, x_1TE: Array) -> Array:
    with reading(x_1TE):
      return log_probs(variables)[:, target]

  @jax.jit
  def attribute(variables: PyTree, x_1TE: Array):
    def own(x_1TE: Array) -> Array:
      return score(variables, x_1TE)

    gradients_1TE = gradients(own, x_1TE)
    attributions = {
      INTEGRATED: integrated_gradients(own, x_1TE, num_points),
      "gradient × input": gradient_times_input(gradients_1TE, x_1TE),
      "norm of the gradient": norms(gradients_1TE),
    }
    return attributions, own(x_1TE), own(jnp.zeros_like(x_1TE))

  attributions, log_prob, blank = jax.device_get(attribute(variables, x_1TE))
  return Explanation(
    readable(tokenizer, tokens_1T[0]),
    names[target],
    float(log_prob[0]),
    float(blank[0]),
    {method: values_1T[0] for method, values_1T in attributions.items()},
    maps,
  )
