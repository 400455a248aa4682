# SPDX-License-Identifier: Apache-2.0
"""The decoder of a recurrent sequence-to-sequence model.

Recurrent layers whose output queries the encoder's hidden vectors. See
recurrent_seq2seq.py for the model around it.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.errors import check_choice
from lmjax.layers import global_attention
from lmjax.layers.dense import Dense
from lmjax.layers.dropout import Dropout
from lmjax.layers.global_attention import GlobalAttention
from lmjax.layers.stateful import State
from lmjax.ops.cells import CELLS
from lmjax.ops.pointer_generator import Pointing
from lmjax.types import Array, PyTree

ATTENTIONS = ("none", *global_attention.KINDS)


class Memory(NamedTuple):
  """The encoder's output; batch axis first.

  Attributes:
    states: initial state of each decoder layer.
    values_BSE: the encoder's hidden vectors.
    keys_BSD: attention keys; None without attention.
    mask_BS: false on padding.
    tokens_BS: source tokens, for the copy mechanism.
  """

  states: tuple[State, ...]
  values_BSE: Array
  keys_BSD: Array | None
  mask_BS: Array
  tokens_BS: Array


class DecoderCarry(NamedTuple):
  """The decoder's carry; batch axis first.

  Attributes:
    states: state of each layer.
    feed_BD: output at the newest token, the next input of input feeding.
    started_B: false before the first token. The states are then ignored and
      those of the memory are used, because a carry is created before its
      source is known.
  """

  states: tuple[State, ...]
  feed_BD: Array
  started_B: Array


class DecoderStep(NamedTuple):
  """What the decoder computes from one or more tokens.

  Attributes:
    output: hidden vectors [B, T, output_width], or a Pointing with the copy
      mechanism.
    weights_BTS: attention weights; None without attention.
    states: state of each layer after the last token.
    feed_BD: float32 hidden vector at the last token, for input feeding.
  """

  output: PyTree
  weights_BTS: Array | None
  states: tuple[State, ...]
  feed_BD: Array


class RecurrentDecoder(nn.Module, kw_only=True):
  """Recurrent layers with attention to a source (Luong et al. 2015).

  arXiv:1508.04025. The output at a token is the attentional vector
  tanh(W [c; h]) of the attention's average c of the source and the hidden
  vector h (equation 5); without attention it is h.

  Attributes:
    make_layer: constructor of a layer, given its width; a partial with `cell`.
    num_layers: number of layers.
    width: width D of the layers.
    output_width: width of the attentional vector; `width` without attention.
    attention: one of ATTENTIONS.
    input_feeding: whether the output at a token is concatenated to the
      embedding of the next one (section 3.3 of the paper).
    copy_mechanism: whether source tokens can be copied: the pointer–generator
      of See et al. 2017 (arXiv:1704.04368).
    dropout: dropout rate of embeddings, layer outputs and attentional vectors.
    is_transposed: whether the parameters of the layers are transposed, as
      `for_decoding` lays them out.
    layer_dtype: dtype of the matmuls of the recurrent layers.
    dtype: dtype of all other matmuls.
    param_dtype: dtype of the parameters.
  """

  make_layer: functools.partial
  num_layers: int
  width: int
  output_width: int
  attention: str = "general"
  input_feeding: bool = False
  copy_mechanism: bool = False
  dropout: float = 0.0
  is_transposed: bool = False
  layer_dtype: jnp.dtype = jnp.float32
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the layers."""
    check_choice("attention", self.attention, ATTENTIONS)
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    dense = functools.partial(Dense, initializer="glorot_uniform", **dtypes)
    make_layer = self.make_layer
    if self.is_transposed:
      # The parameters exist already, but Flax validates their shapes with the
      # initializer, and the orthogonal one only has the untransposed shape.
      make_layer = functools.partial(
        make_layer, recurrent_initializer="uniform", is_transposed=True
      )
    self.layers = [
      make_layer(
        width=self.width,
        name=f"layer_{index}",
        dtype=self.layer_dtype,
        param_dtype=self.param_dtype,
      )
      for index in range(self.num_layers)
    ]
    self.drop = Dropout(self.dropout)
    if self.attention != "none":
      self.attend = GlobalAttention(self.attention, self.width, **dtypes)
      self.combine = dense((self.output_width,))
    if self.copy_mechanism:
      self.gate = dense((1,), use_bias=True)

  @property
  def state_size(self) -> int:
    """Number of arrays in the state of a layer: 2 for an LSTM (h, c)."""
    return CELLS[self.make_layer.keywords["cell"]].num_states

  def keys(self, values_BSE: Array) -> Array | None:
    """Return the attention keys of a source, or None without attention."""
    return None if self.attention == "none" else self.attend.keys(values_BSE)

  def __call__(
    self,
    x_BTE: Array,
    states: tuple[State, ...],
    feed_BD: Array,
    memory: Memory,
  ) -> DecoderStep:
    """Process the embeddings of target tokens.

    Args:
      x_BTE: token embeddings; T = 1 with input feeding.
      states: state of each layer before them.
      feed_BD: output at the previous token.
      memory: the source.
    """
    x = self.drop(x_BTE)
    if self.input_feeding:
      x = jnp.concatenate([x, feed_BD[:, None].astype(x.dtype)], axis=-1)
    new_states = []
    for layer, state in zip(self.layers, states, strict=True):
      x, state = layer(x, state)
      x = self.drop(x.astype(self.dtype))  # `layer_dtype` may be wider
      new_states.append(state)
    new_states = tuple(new_states)
    if self.attention == "none":
      return DecoderStep(x, None, new_states, x[:, -1].astype(jnp.float32))
    average_BTE, weights_BTS = self.attend(
      x, memory.keys_BSD, memory.values_BSE, memory.mask_BS
    )
    both = jnp.concatenate([average_BTE, x], axis=-1)
    hidden_BTD = self.drop(jnp.tanh(self.combine(both)))
    output = hidden_BTD
    if self.copy_mechanism:
      # See et al. 2017, equation 8: the gate depends on the context vector, the
      # decoder state and the decoder input.
      inputs = jnp.concatenate([both, x_BTE], axis=-1)
      gate_BT = jax.nn.sigmoid(self.gate(inputs)[..., 0].astype(jnp.float32))
      sources_BTS = jnp.broadcast_to(
        memory.tokens_BS[:, None], weights_BTS.shape
      )
      output = Pointing(hidden_BTD, gate_BT, weights_BTS, sources_BTS)
    # float32 as in the initial carry: the carry of a scan cannot change dtype.
    feed_BD = hidden_BTD[:, -1].astype(jnp.float32)
    return DecoderStep(output, weights_BTS, new_states, feed_BD)

  @nn.nowrap
  def initial_carry(self, batch_size: int) -> DecoderCarry:
    """Return the carry before the first token."""
    zeros = jnp.zeros((batch_size, self.width))
    return DecoderCarry(
      ((zeros,) * self.state_size,) * self.num_layers,
      jnp.zeros((batch_size, self.output_width)),
      jnp.zeros(batch_size, bool),
    )

  @nn.nowrap
  def transpose_kernels(
    self, params: PyTree, batch_size: int
  ) -> tuple["RecurrentDecoder", PyTree]:
    """Return a decoder and parameters whose layers have transposed kernels.

    A decoding step of several rows would otherwise transpose them each time.
    """
    if batch_size == 1:
      return self, params
    params = dict(params)
    layer = self.make_layer(width=self.width, dtype=self.dtype, parent=None)
    for index in range(self.num_layers):
      name = f"layer_{index}"
      _, params[name] = layer.for_decoding(params[name], batch_size)
    return self.clone(is_transposed=True), params

  @nn.nowrap
  def flops_per_token(self, embedding_width: int, source_len: int) -> int:
    """Return the matmul FLOPs per target token of the forward pass.

    The projection of attention keys is counted once per target token, for
    sources as long as targets.
    """
    layer = self.make_layer(width=self.width, parent=None)
    feed_width = self.output_width if self.input_feeding else 0
    inputs = [embedding_width + feed_width]
    inputs += [self.width] * (self.num_layers - 1)
    total = sum(map(layer.flops_per_token, inputs))
    if self.attention == "none":
      return total
    # The average, and scores: "additive" has a second product, v · tanh(...).
    products = 3 if self.attention == "additive" else 2
    num_kernels = {"additive": 2, "general": 1}.get(self.attention, 0)
    total += 2 * products * self.width * source_len
    total += 2 * num_kernels * self.width**2
    return total + 4 * self.width * self.output_width  # W [c; h]
