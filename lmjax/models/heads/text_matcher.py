# SPDX-License-Identifier: Apache-2.0
"""From two texts to how they go together."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.dropout import Dropout
from lmjax.layers.pooling import Pooling
from lmjax.models.text_encoder import TextModel
from lmjax.types import Array, Batch

PRODUCTS = ("cosine", "dot", "bilinear")  # comparisons that are dot products
COMPARISONS = (*PRODUCTS, "manhattan", "features")
NEGATIVES = ("hardest", "all")
ENCODERS = ("shared", "separate", "cross")
# Loss → what a matcher says of a pair: the score of each class [B, C], a share
# of the range of scores [B], or how similar the texts are [B].
ANSWERS = {
  "classification": "classes",
  "distribution": "classes",
  "regression": "share",
  "contrastive": "similarity",
  "triplet": "similarity",
}


class TextMatcher(TextModel):
  """Both texts to a vector each, which are compared.

  Attributes:
    second_encoder: what reads the second text; None for the same.
    pooling: one of POOLINGS.
    comparison: of vectors a and b. "cosine"; "dot", aᵀb; "bilinear", aᵀWb;
      "manhattan", exp(−‖a − b‖₁) (Mueller & Thyagarajan 2016); "features",
      |a − b| and a·b, feature by feature, through a hidden layer (Tai et al.
      2015, arXiv:1503.00075).
    features_width: width of that hidden layer.
    dropout: share of the pooled features that is dropped.
    answer: see ANSWERS.
    num_classes: C, where it answers with classes.
  """

  second_encoder: nn.Module | None
  pooling: str
  comparison: str
  features_width: int
  dropout: float
  answer: str
  num_classes: int

  def setup(self):
    """Create the head."""
    super().setup()
    dtypes = dict(
      dtype=self.encoder.dtype, param_dtype=self.encoder.param_dtype
    )

    def make_pool(encoder: nn.Module, name: str) -> Pooling:
      width = encoder.backward_width
      return Pooling(self.pooling, width, name=name, **dtypes)

    self.pool = make_pool(self.encoder, "pool")
    if self.second_encoder:
      self.second_pool = make_pool(self.second_encoder, "second_pool")
    self.drop_pooled = Dropout(self.dropout)
    if self.comparison == "bilinear":
      width = self.encoder.hidden_width
      self.bilinear = nn.Dense(width, use_bias=False, **dtypes)
    if self.comparison == "features":
      self.features = nn.Dense(self.features_width, **dtypes)
    if self.answer == "classes":
      self.classifier = nn.Dense(self.num_classes, **dtypes)
    elif self.comparison == "features":
      self.scorer = nn.Dense(1, **dtypes)

  def __call__(self, batch: Batch) -> Array:
    """Say how the texts of each row go together, in float32; see ANSWERS."""
    vectors = self.vectors(batch)
    first_BD, second_BD = vectors["first"], vectors["second"]
    if self.comparison == "features":
      features_BF = self._features(first_BD, second_BD)
      if self.answer == "classes":
        return self.classifier(features_BF).astype(jnp.float32)
      return jax.nn.sigmoid(self.scorer(features_BF)[:, 0].astype(jnp.float32))
    if self.comparison == "manhattan":
      similar_B = jnp.exp(-jnp.sum(jnp.abs(first_BD - second_BD), axis=-1))
    else:
      similar_B = jnp.sum(first_BD * second_BD, axis=-1)
    if self.answer == "classes":
      return self.classifier(similar_B[:, None]).astype(jnp.float32)
    return self._share(similar_B) if self.answer == "share" else similar_B

  def vectors(self, batch: Batch) -> dict[str, Array]:
    """Turn the texts that are there into vectors, float32 [B, D].

    Where the comparison is one of PRODUCTS, the dot product of "first" and
    "second" is how similar the texts are.
    """
    vectors = {}
    if "inputs" in batch:
      first_BD = self._read(
        self.encoder, self.pool, batch["inputs"], batch["mask"]
      )
      if self.comparison == "bilinear":
        first_BD = self.bilinear(first_BD)
      vectors["first"] = self._scaled(first_BD)
    if "others" in batch:
      encoder = self.second_encoder or self.encoder
      pool = self.second_pool if self.second_encoder else self.pool
      second_BD = self._read(
        encoder, pool, batch["others"], batch["others_mask"]
      )
      vectors["second"] = self._scaled(second_BD)
    return vectors

  def _read(
    self, encoder: nn.Module, pool: Pooling, tokens_BT: Array, mask_BT: Array
  ) -> Array:
    hidden_BTD = encoder.contextualize(encoder.embed(tokens_BT), mask_BT)
    return self.drop_pooled(pool(hidden_BTD, mask_BT))

  def _scaled(self, vectors_BD: Array) -> Array:
    vectors_BD = vectors_BD.astype(jnp.float32)
    if self.comparison != "cosine":
      return vectors_BD
    squares_B1 = jnp.sum(vectors_BD**2, axis=-1, keepdims=True)
    return vectors_BD * jax.lax.rsqrt(squares_B1 + 1e-12)

  def _features(self, first_BD: Array, second_BD: Array) -> Array:
    both_BE = jnp.concatenate(
      [jnp.abs(first_BD - second_BD), first_BD * second_BD], axis=-1
    )
    return jax.nn.sigmoid(self.features(both_BE))

  def _share(self, similar_B: Array) -> Array:
    """Turn a similarity into a share of the range of scores."""
    if self.comparison == "manhattan":
      return similar_B
    if self.comparison == "cosine":
      return (1 + similar_B) / 2
    return jax.nn.sigmoid(similar_B)


class CrossEncoder(TextModel):
  """Both texts read at once, as one row (Devlin et al. 2018, arXiv:1810.04805).

  Attributes:
    pooling: one of POOLINGS.
    dropout: share of the pooled features that is dropped.
    answer: see ANSWERS.
    num_classes: C, where it answers with classes.
  """

  pooling: str
  dropout: float
  answer: str
  num_classes: int

  def setup(self):
    """Create the head, and a vector for each of the two segments."""
    super().setup()
    dtypes = dict(
      dtype=self.encoder.dtype, param_dtype=self.encoder.param_dtype
    )
    width = self.encoder.input_width or self.encoder.embedding_width
    self.segments = nn.Embed(2, width, **dtypes)
    self.pool = Pooling(self.pooling, self.encoder.backward_width, **dtypes)
    self.drop_pooled = Dropout(self.dropout)
    if self.answer == "classes":
      self.classifier = nn.Dense(self.num_classes, **dtypes)
    else:
      self.scorer = nn.Dense(1, **dtypes)

  def __call__(self, batch: Batch) -> Array:
    """Say how the texts of each row go together, in float32; see ANSWERS."""
    x_BTE = self.encoder.embed(batch["inputs"])
    x_BTE += self.segments(batch["segments"])
    hidden_BTD = self.encoder.contextualize(x_BTE, batch["mask"])
    pooled_BD = self.drop_pooled(self.pool(hidden_BTD, batch["mask"]))
    if self.answer == "classes":
      return self.classifier(pooled_BD).astype(jnp.float32)
    return jax.nn.sigmoid(self.scorer(pooled_BD)[:, 0].astype(jnp.float32))


def build(
  config: ConfigDict,
  encoder: nn.Module,
  num_labels: int = 2,
  second_vocab_size: int = 0,
) -> TextMatcher | CrossEncoder:
  """Put a head on an encoder, or on two.

  Raises:
    UsageError: if choices are not known or do not fit together.
  """
  options = config.matching
  answer = ANSWERS[options.loss]
  if options.min_score >= options.max_score:
    raise UsageError(
      f"matching.min_score={options.min_score} must be below "
      f"matching.max_score={options.max_score}."
    )
  if options.second_tokenizer and options.encoders != "separate":
    raise UsageError(
      f"matching.second_tokenizer={options.second_tokenizer} needs an encoder "
      "of its own; set matching.encoders=separate."
    )
  if answer == "similarity":
    if options.encoders == "cross":
      raise UsageError(
        f"matching.loss={options.loss} compares every text with all of a "
        "batch, which matching.encoders=cross would have to read together; "
        "choose shared or separate."
      )
    if options.comparison not in PRODUCTS:
      raise UsageError(
        f"matching.loss={options.loss} needs a comparison by dot products, not "
        f"{options.comparison}; set matching.comparison to one of "
        f"{', '.join(PRODUCTS)}."
      )
  num_classes = num_labels
  if options.loss == "distribution":
    steps = options.max_score - options.min_score
    if steps != int(steps):
      raise UsageError(
        f"matching.min_score={options.min_score} and matching.max_score="
        f"{options.max_score} must be whole steps apart for "
        "matching.loss=distribution."
      )
    num_classes = int(steps) + 1
  shared = dict(
    encoder=encoder,
    pooling=options.pooling,
    dropout=options.dropout,
    answer=answer,
    num_classes=num_classes,
  )
  if options.encoders == "cross":
    return CrossEncoder(**shared)
  second_encoder = None
  if options.encoders == "separate":
    vocab_size = second_vocab_size or encoder.vocab_size
    second_encoder = encoder.clone(vocab_size=vocab_size)
  return TextMatcher(
    **shared,
    second_encoder=second_encoder,
    comparison=options.comparison,
    features_width=options.features_width,
  )
