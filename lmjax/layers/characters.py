# SPDX-License-Identifier: Apache-2.0
"""A vector of a word from its characters.

Dimension letters:

    W  characters of a word
"""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.embeddings import TokenEmbedding
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.types import Array


class CharacterEncoder(nn.Module):
  """Embed characters and read them word by word.

  Attributes:
    num_characters: number of characters, including padding.
    embedding_width: width E of their embeddings.
    width: width D of a word's vector.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
    pad_id: character of padding after the end of a word.
  """

  num_characters: int
  embedding_width: int
  width: int
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32
  pad_id: int = 0

  @nn.compact
  def __call__(self, characters_BTW: Array) -> Array:
    """Read words, [B, T, W] to [B, T, D].

    Padding after a word's last character has no effect.
    """
    batch, time, length = characters_BTW.shape
    characters_NW = characters_BTW.reshape(-1, length)
    mask_NW = characters_NW != self.pad_id
    embedding = TokenEmbedding(
      self.num_characters,
      self.embedding_width,
      init_scale=0.1,
      name="embedding",
      **self._dtypes,
    )
    x_NWE = jnp.where(mask_NW[..., None], embedding(characters_NW), 0)
    return self.read(x_NWE, mask_NW).reshape(batch, time, self.width)

  @property
  def _dtypes(self) -> dict[str, jnp.dtype]:
    return dict(dtype=self.dtype, param_dtype=self.param_dtype)

  def read(self, x_NWE: Array, mask_NW: Array) -> Array:
    """Read embeddings, [N, W, E] to [N, D]."""
    raise NotImplementedError


class CharacterCNN(CharacterEncoder):
  """Convolve, and take each feature's maximum (Ma & Hovy 2016).

  arXiv:1603.01354.

  Attributes:
    size: how many characters a convolution sees, odd.
  """

  size: int = 3

  def read(self, x_NWE: Array, mask_NW: Array) -> Array:
    """Read embeddings; a word without characters becomes 0."""
    length, reach = x_NWE.shape[1], self.size // 2
    padded = jnp.pad(x_NWE, ((0, 0), (reach, reach), (0, 0)))
    views = [padded[:, back : back + length] for back in range(self.size)]
    convolve = nn.Dense(self.width, name="convolution", **self._dtypes)
    y_NWD = convolve(jnp.concatenate(views, axis=-1))
    lowest = jnp.finfo(y_NWD.dtype).min
    highest_ND = jnp.where(mask_NW[..., None], y_NWD, lowest).max(axis=1)
    return jnp.where(mask_NW.any(axis=1)[:, None], highest_ND, 0)


class CharacterLSTM(CharacterEncoder):
  """Read forward and backward, half of the width each (Lample et al. 2016).

  arXiv:1603.01360.
  """

  def read(self, x_NWE: Array, mask_NW: Array) -> Array:
    """Return the final states of both directions."""
    sizes = dict(forward=self.width - self.width // 2, backward=self.width // 2)
    ends = []
    for name, width in sizes.items():
      layer = RecurrentLayer("lstm", width, name=name, **self._dtypes)
      state = layer.initial_state(len(x_NWE), x_NWE.shape[-1])
      _, (end_ND, _) = layer(x_NWE, state, None, mask_NW)
      ends.append(end_ND.astype(self.dtype))
      x_NWE, mask_NW = x_NWE[:, ::-1], mask_NW[:, ::-1]
    return jnp.concatenate(ends, axis=-1)


CHARACTER_ENCODERS = {"cnn": CharacterCNN, "lstm": CharacterLSTM}
