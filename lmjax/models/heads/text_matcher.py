# SPDX-License-Identifier: Apache-2.0
"""Heads for pairs of texts: similarity, entailment and retrieval."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError, check_choice
from lmjax.layers.dropout import Dropout
from lmjax.layers.pooling import Pooling
from lmjax.models.text_encoder import TextModel
from lmjax.types import Array, Batch

PRODUCTS = ("cosine", "dot", "bilinear")  # comparisons that are dot products
COMPARISONS = (*PRODUCTS, "manhattan", "features")
NEGATIVES = ("hardest", "all")
ENCODERS = ("shared", "separate", "cross")
# Loss → what a matcher returns for each pair: logits of classes [B, C], a score
# [B] from 0 to 1 within the range of the labels, or a similarity [B].
OUTPUTS = {
  "classification": "classes",
  "distribution": "classes",
  "regression": "score",
  "contrastive": "similarity",
  "triplet": "similarity",
}


class TextMatcher(TextModel):
  """Siamese or two-tower model: a vector per text, and a comparison.

  Attributes:
    second_encoder: encoder of the second text; None to share the first.
    pooling: one of POOLINGS.
    comparison: of vectors a and b: "cosine"; "dot", aᵀb; "bilinear", aᵀWb;
      "manhattan", exp(−‖a − b‖₁) (Mueller & Thyagarajan 2016, AAAI);
      "features", |a − b| and a ⊙ b through a hidden layer (Tai et al. 2015,
      arXiv:1503.00075).
    features_width: width of that hidden layer.
    dropout: dropout rate of the pooled features.
    output: one of the values of OUTPUTS.
    num_classes: number of classes C of output="classes".
  """

  second_encoder: nn.Module | None
  pooling: str
  comparison: str
  features_width: int
  dropout: float
  output: str
  num_classes: int

  def setup(self):
    """Create the head."""
    super().setup()
    check_choice("comparison", self.comparison, COMPARISONS)
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
    if self.output == "classes":
      self.classifier = nn.Dense(self.num_classes, **dtypes)
    elif self.comparison == "features":
      self.scorer = nn.Dense(1, **dtypes)

  def __call__(self, batch: Batch) -> Array:
    """Return the output for each pair, float32; see OUTPUTS."""
    vectors = self.vectors(batch)
    first_BD, second_BD = vectors["first"], vectors["second"]
    if self.comparison == "features":
      features_BF = self._features(first_BD, second_BD)
      if self.output == "classes":
        return self.classifier(features_BF).astype(jnp.float32)
      return jax.nn.sigmoid(self.scorer(features_BF)[:, 0].astype(jnp.float32))
    if self.comparison == "manhattan":
      similarity_B = jnp.exp(-jnp.sum(jnp.abs(first_BD - second_BD), axis=-1))
    else:
      similarity_B = jnp.sum(first_BD * second_BD, axis=-1)
    if self.output == "classes":
      return self.classifier(similarity_B[:, None]).astype(jnp.float32)
    return self._score(similarity_B) if self.output == "score" else similarity_B

  def vectors(self, batch: Batch) -> dict[str, Array]:
    """Return the vectors of the texts in a batch, float32 [B, D].

    With a comparison in PRODUCTS, the similarity of two texts is the dot
    product of "first" and "second", so that retrieval can index either one.

    Args:
      batch: `inputs` and `mask` of first texts, `others` and `others_mask` of
        second texts, or only one of the two.

    Returns:
      "first" and "second", as far as the batch has them.
    """
    vectors = {}
    if "inputs" in batch:
      first_BD = self._encode(
        self.encoder, self.pool, batch["inputs"], batch["mask"]
      )
      if self.comparison == "bilinear":
        first_BD = self.bilinear(first_BD)
      vectors["first"] = self._normalize(first_BD)
    if "others" in batch:
      encoder = self.second_encoder or self.encoder
      pool = self.second_pool if self.second_encoder else self.pool
      second_BD = self._encode(
        encoder, pool, batch["others"], batch["others_mask"]
      )
      vectors["second"] = self._normalize(second_BD)
    return vectors

  def _encode(
    self, encoder: nn.Module, pool: Pooling, tokens_BT: Array, mask_BT: Array
  ) -> Array:
    hidden_BTD = encoder.contextualize(encoder.embed(tokens_BT), mask_BT)
    return self.drop_pooled(pool(hidden_BTD, mask_BT))

  def _normalize(self, vectors_BD: Array) -> Array:
    vectors_BD = vectors_BD.astype(jnp.float32)
    if self.comparison != "cosine":
      return vectors_BD
    # The epsilon keeps a zero vector, and its gradient, finite.
    squares_B1 = jnp.sum(vectors_BD**2, axis=-1, keepdims=True)
    return vectors_BD * jax.lax.rsqrt(squares_B1 + 1e-12)

  def _features(self, first_BD: Array, second_BD: Array) -> Array:
    both_BE = jnp.concatenate(
      [jnp.abs(first_BD - second_BD), first_BD * second_BD], axis=-1
    )
    return jax.nn.sigmoid(self.features(both_BE))

  def _score(self, similarity_B: Array) -> Array:
    """Map a similarity to a score from 0 to 1."""
    if self.comparison == "manhattan":
      return similarity_B  # exp(−distance) is between 0 and 1
    if self.comparison == "cosine":
      return (1 + similarity_B) / 2
    return jax.nn.sigmoid(similarity_B)


class CrossEncoder(TextModel):
  """Encoder of both texts as one sequence, as BERT (Devlin et al. 2018).

  arXiv:1810.04805.

  Attributes:
    pooling: one of POOLINGS.
    dropout: dropout rate of the pooled features.
    output: one of the values of OUTPUTS.
    num_classes: number of classes C of output="classes".
  """

  pooling: str
  dropout: float
  output: str
  num_classes: int

  def setup(self):
    """Create the head and the segment embeddings."""
    super().setup()
    dtypes = dict(
      dtype=self.encoder.dtype, param_dtype=self.encoder.param_dtype
    )
    # Segments are added to the embeddings, so they have the same width.
    width = self.encoder.input_width or self.encoder.embedding_width
    self.segments = nn.Embed(2, width, **dtypes)
    self.pool = Pooling(self.pooling, self.encoder.backward_width, **dtypes)
    self.drop_pooled = Dropout(self.dropout)
    if self.output == "classes":
      self.classifier = nn.Dense(self.num_classes, **dtypes)
    else:
      self.scorer = nn.Dense(1, **dtypes)

  def __call__(self, batch: Batch) -> Array:
    """Return the output for each pair, float32; see OUTPUTS."""
    x_BTE = self.encoder.embed(batch["inputs"])
    x_BTE += self.segments(batch["segments"])
    hidden_BTD = self.encoder.contextualize(x_BTE, batch["mask"])
    pooled_BD = self.drop_pooled(self.pool(hidden_BTD, batch["mask"]))
    if self.output == "classes":
      return self.classifier(pooled_BD).astype(jnp.float32)
    return jax.nn.sigmoid(self.scorer(pooled_BD)[:, 0].astype(jnp.float32))


def build(
  config: ConfigDict,
  encoder: nn.Module,
  num_labels: int = 2,
  second_vocab_size: int = 0,
) -> TextMatcher | CrossEncoder:
  """Add a head to one encoder or two.

  Args:
    config: a config with task=matching.
    encoder: encoder of both texts, or of the first.
    num_labels: number of classes of matching.loss=classification.
    second_vocab_size: vocabulary size of the second encoder; 0 for the same.

  Raises:
    UsageError: if settings do not fit together.
  """
  options = config.matching
  output = OUTPUTS[options.loss]
  if options.min_score >= options.max_score:
    raise UsageError(
      f"matching.min_score={options.min_score} must be below "
      f"matching.max_score={options.max_score}."
    )
  if options.second_tokenizer and options.encoders != "separate":
    raise UsageError(
      f"matching.second_tokenizer={options.second_tokenizer} needs a second "
      "encoder; set matching.encoders=separate."
    )
  if output == "similarity":
    if options.encoders == "cross":
      raise UsageError(
        f"matching.loss={options.loss} compares all pairs of a batch, each of "
        "which matching.encoders=cross would have to encode; choose shared or "
        "separate."
      )
    if options.comparison not in PRODUCTS:
      raise UsageError(
        f"matching.loss={options.loss} needs a comparison by dot products, not "
        f"{options.comparison}; set matching.comparison to one of "
        f"{', '.join(PRODUCTS)}."
      )
  num_classes = num_labels
  if options.loss == "distribution":
    # One class per integer score (Tai et al. 2015, section 4.2).
    steps = options.max_score - options.min_score
    if steps != int(steps):
      raise UsageError(
        f"matching.min_score={options.min_score} and matching.max_score="
        f"{options.max_score} must differ by an integer for "
        "matching.loss=distribution."
      )
    num_classes = int(steps) + 1
  shared = dict(
    encoder=encoder,
    pooling=options.pooling,
    dropout=options.dropout,
    output=output,
    num_classes=num_classes,
  )
  if options.encoders == "cross":
    return CrossEncoder(**shared)
  second_encoder = None
  if options.encoders == "separate":
    vocab_size = second_vocab_size or encoder.vocab_size
    # Same architecture, separate parameters under "second_encoder".
    second_encoder = encoder.clone(vocab_size=vocab_size)
  return TextMatcher(
    **shared,
    second_encoder=second_encoder,
    comparison=options.comparison,
    features_width=options.features_width,
  )
