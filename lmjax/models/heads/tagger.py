# SPDX-License-Identifier: Apache-2.0
"""The sequence tagging head, with an optional CRF.

Dimension letters:

    W  characters of a word
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.characters import CHARACTER_ENCODERS
from lmjax.layers.dropout import Dropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.models.text_encoder import TextModel
from lmjax.types import Array


class Tagger(TextModel):
  """Text encoder and a linear tagger, as BiLSTM-CRF (Huang et al. 2015).

  arXiv:1508.01991; with character features of words as Lample et al. 2016
  (arXiv:1603.01360) and Ma & Hovy 2016 (arXiv:1603.01354); with embeddings of
  character bigrams as Chen et al. 2015 (EMNLP).

  Attributes:
    num_tags: number of tags C.
    crf: whether tag transitions have scores (linear-chain CRF).
    dropout: dropout rate of the encoder's output.
    make_characters: constructor of the character encoder, or None.
    make_bigrams: constructor of the bigram embeddings, or None.
  """

  num_tags: int
  crf: bool
  dropout: float
  make_characters: functools.partial | None
  make_bigrams: functools.partial | None

  def setup(self):
    """Create the head."""
    super().setup()
    encoder = self.encoder
    dtypes = dict(dtype=encoder.dtype, param_dtype=encoder.param_dtype)
    if self.make_characters:
      self.characters = self.make_characters(**dtypes)
    if self.make_bigrams:
      self.bigrams = self.make_bigrams(**dtypes)
    # Encoders of a fixed input width get the features through a projection.
    if encoder.input_width and (self.make_characters or self.make_bigrams):
      self.join = nn.Dense(encoder.input_width, **dtypes)
    self.drop_hidden = Dropout(self.dropout)
    self.tagger = nn.Dense(self.num_tags, **dtypes)
    if self.crf:
      # One more row and column for the start and the end of a sequence.
      edges = self.num_tags + 1
      self.transitions = self.param(
        "transitions",
        nn.initializers.zeros,
        (edges, edges),
        encoder.param_dtype,
      )

  def __call__(
    self,
    tokens_BT: Array,
    mask_BT: Array,
    characters_BTW: Array | None = None,
    bigrams_BT: Array | None = None,
  ) -> tuple[Array, Array | None]:
    """Return the tag scores of all tokens.

    Args:
      tokens_BT: int tokens.
      mask_BT: true on tokens.
      characters_BTW: int characters of each token, padded with 0; None without
        a character encoder.
      bigrams_BT: id of each token's bigram with the next token; None without
        bigram embeddings.

    Returns:
      Scores, float32 [B, T, C], and transition scores [C + 1, C + 1] or None;
      see lmjax.ops.crf.
    """
    x_BTE = self.encoder.embed(tokens_BT)
    features = [x_BTE]
    if self.make_characters:
      features.append(self.characters(characters_BTW))
    if self.make_bigrams:
      features.append(self.bigrams(bigrams_BT))
    if len(features) > 1:
      x_BTE = jnp.concatenate(features, axis=-1).astype(x_BTE.dtype)
      if self.encoder.input_width:
        x_BTE = self.join(x_BTE)
    hidden_BTD = self.encoder.contextualize(x_BTE, mask_BT)
    scores_BTY = self.tagger(self.drop_hidden(hidden_BTD))
    transitions_YY = self.transitions if self.crf else None
    return scores_BTY.astype(jnp.float32), transitions_YY


def build(
  config: ConfigDict,
  encoder: nn.Module,
  num_characters: int = 2,
  num_tags: int = 2,
  num_bigrams: int = 2,
  character_pad_id: int = 0,
) -> Tagger:
  """Add a tagging head to an encoder.

  Args:
    config: a config with task=tagging.
    encoder: the text encoder.
    num_characters: size of the character vocabulary.
    num_tags: number of tags C.
    num_bigrams: size of the bigram vocabulary.
    character_pad_id: character of padding after the end of a word.
  """
  options = config.tagging
  make_characters = make_bigrams = None
  if options.max_characters:
    make_characters = functools.partial(
      CHARACTER_ENCODERS[options.character_encoder],
      num_characters,
      options.character_embedding_width,
      options.character_width,
      pad_id=character_pad_id,
    )
  if options.bigram_width:
    make_bigrams = functools.partial(
      TokenEmbedding, num_bigrams, options.bigram_width, init_scale=0.1
    )
  return Tagger(
    encoder,
    num_tags,
    options.crf,
    options.dropout,
    make_characters,
    make_bigrams,
  )
