# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers that write one text while they look at another."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers import global_attention
from lmjax.layers.dense import Dense
from lmjax.layers.dropout import Dropout
from lmjax.layers.embeddings import OutputLayer, TokenEmbedding, make_logits
from lmjax.layers.global_attention import GlobalAttention
from lmjax.layers.initializers import INITIALIZERS
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.layers.stateful import State
from lmjax.models.choices import check_choice
from lmjax.models.language_model import LanguageModel
from lmjax.models.recurrent_encoder import RecurrentEncoder
from lmjax.ops import pointer_generator
from lmjax.ops.cells import CELLS
from lmjax.ops.linear_cross_entropy import CrossEntropy
from lmjax.ops.pointer_generator import Pointing
from lmjax.types import Array, PyTree

ATTENTIONS = ("none", *global_attention.KINDS)


class Memory(NamedTuple):
  """A source text as the decoder looks at it, batch first.

  Attributes:
    states: what each layer of the decoder begins in.
    values_BSE: what the encoder made of each token.
    keys_BSD: what queries are compared with; None without attention.
    mask_BS: false on padding.
    tokens_BS: the source itself, to be copied from.
  """

  states: tuple[State, ...]
  values_BSE: Array
  keys_BSD: Array | None
  mask_BS: Array
  tokens_BS: Array


class Carry(NamedTuple):
  """What the decoder remembers, batch first.

  Attributes:
    states: a state a layer.
    fed_BD: what was made of the newest token; it is fed in with the next.
    begun_B: false before the first token, which begins in the memory's states.
  """

  states: tuple[State, ...]
  fed_BD: Array
  begun_B: Array


class RecurrentSeq2Seq(LanguageModel):
  """An encoder that reads both ways, and a decoder that attends to it.

  Sutskever et al. 2014 (arXiv:1409.3215) without attention. With it, what a
  token becomes is tanh(W [average of the source; state]), by which the next is
  scored (Luong et al. 2015, arXiv:1508.04025). The decoder begins in a map of
  the states that the encoder ends in.

  All tokens of a target are read at once, but for `input_feeding` and
  `scheduled_sampling`, which need what was made of the token before.

  Where `mutable` names "intermediates", the weights of attention [B, T, S] are
  sown as "attention_weights".

  Attributes:
    vocab_size: number of tokens V.
    embedding_width: width E of the token embeddings.
    make_layer: what makes a layer, given its width; of encoder and decoder.
    num_layers: layers of the decoder.
    num_encoder_layers: layers of the encoder, in each direction.
    width: width D of the decoder, and of the encoder's directions together.
    bidirectional: whether the encoder reads backward too.
    attention: one of ATTENTIONS.
    source_vocab_size: number of tokens of sources, which then have an embedding
      of their own; 0 for one vocabulary and one table.
    input_feeding: whether what was made of a token is fed in with the next.
    copy_mechanism: whether tokens of the source may be copied, with the weights
      of attention: the pointer–generator of See et al. 2017 (arXiv:1704.04368).
    scheduled_sampling: in training, the share of inputs that the model draws
      itself (Bengio et al. 2015, arXiv:1506.03099).
    dropout: share of features dropped: of embeddings, behind layers, and of
      what tokens become.
    tie_embeddings: whether the embedding table makes the logits too.
    is_transposed: whether the decoder's kernels are given as their transposes.
    embedding_scale: standard deviation of the embeddings at initialization.
    dtype: dtype of the matmuls, but for those of a decoder that reads token
      after token, and between encoder and decoder: they are in float32.
    param_dtype: dtype of the parameters.
  """

  kinds = ("encoder_decoder",)
  max_context = None  # states hold any number of tokens

  vocab_size: int
  embedding_width: int
  make_layer: functools.partial
  num_layers: int
  num_encoder_layers: int
  width: int
  bidirectional: bool = True
  attention: str = "general"
  source_vocab_size: int = 0
  input_feeding: bool = False
  copy_mechanism: bool = False
  scheduled_sampling: float = 0.0
  dropout: float = 0.0
  tie_embeddings: bool = False
  is_transposed: bool = False
  embedding_scale: float = 0.1
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    embed = functools.partial(
      TokenEmbedding,
      width=self.embedding_width,
      init_scale=self.embedding_scale,
      **dtypes,
    )
    dense = functools.partial(Dense, initializer="glorot_uniform", **dtypes)
    self.embedding = embed(self.vocab_size)
    if self.source_vocab_size:
      self.source_embedding = embed(self.source_vocab_size)
    self.encoder = RecurrentEncoder(
      self.source_vocab_size or self.vocab_size,
      self.embedding_width,
      self.make_layer,
      self.num_encoder_layers,
      self.width // (2 if self.bidirectional else 1),
      self.bidirectional,
      self.dropout,
      **dtypes,
    )
    bridge = functools.partial(  # in float32, as states are
      dense, (self.width,), use_bias=True, dtype=jnp.float32
    )
    self.bridges = [
      [bridge() for _ in range(self._num_arrays)]
      for _ in range(self.num_layers)
    ]
    make_layer = self.make_layer
    if (
      self.is_transposed
    ):  # parameters are there; none can be drawn as a transpose
      plain = dict(recurrent_initializer="uniform", is_transposed=True)
      make_layer = functools.partial(make_layer, **plain)
    layer_dtypes = dict(dtypes)
    if self.input_feeding or self.scheduled_sampling:
      # XLA's CPU backend has no gradient of single steps in bfloat16.
      layer_dtypes["dtype"] = jnp.float32
    self.layers = [
      make_layer(width=self.width, name=f"layer_{index}", **layer_dtypes)
      for index in range(self.num_layers)
    ]
    self.drop = Dropout(self.dropout)
    if self.attention != "none":
      self.attend = GlobalAttention(self.attention, self.width, **dtypes)
      self.combine = dense((self._made_width,))
    if self.copy_mechanism:
      self.gate = dense((1,), use_bias=True)
    if not self.tie_embeddings:
      self.output = OutputLayer(
        self.vocab_size, self._made_width, param_dtype=self.param_dtype
      )

  @property
  def _made_width(self) -> int:
    """Width of what a token becomes."""
    tied = self.tie_embeddings and self.attention != "none"
    return self.embedding_width if tied else self.width

  @property
  def _num_arrays(self) -> int:
    """How many arrays a state has."""
    return CELLS[self.make_layer.keywords["cell"]].num_states

  def encode(self, sources_BS: Array, mask_BS: Array | None = None) -> Memory:
    """Read source texts.

    Args:
      sources_BS: int tokens.
      mask_BS: true on tokens, false on padding; None for no padding.
    """
    if mask_BS is None:
      mask_BS = jnp.ones(sources_BS.shape, bool)
    mask_BS = mask_BS.astype(bool)
    table = self.source_embedding if self.source_vocab_size else self.embedding
    values_BSE, ends = self.encoder.read(table(sources_BS), mask_BS)
    states = []
    for index, bridges in enumerate(self.bridges):
      both = ends[min(index, len(ends) - 1)]
      arrays = [
        jnp.concatenate(array, axis=-1) for array in zip(*both, strict=True)
      ]
      begin = [
        bridge(array) for bridge, array in zip(bridges, arrays, strict=True)
      ]
      states.append((jnp.tanh(begin[0]), *begin[1:]))
    keys_BSD = None
    if self.attention != "none":
      keys_BSD = self.attend.keys(values_BSE)
    return Memory(tuple(states), values_BSE, keys_BSD, mask_BS, sources_BS)

  def __call__(
    self,
    tokens_BT: Array,
    carry: Carry | None = None,
    resets_BT: None = None,
    memory: Memory | None = None,
  ) -> tuple[PyTree, Carry | None]:
    """Read target tokens behind those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: what was remembered of the tokens before; None for none.
      resets_BT: None; each target is one text.
      memory: what `encode` made of the sources.

    Returns:
      hidden_BTD in `dtype`, or a Pointing where it copies, and the carry behind
      the last token, or None if none was given.

    Raises:
      UsageError: if there is no source.
    """
    assert resets_BT is None, "a target is one text"
    if memory is None:
      if not self.is_initializing():
        raise UsageError(
          "model.name=recurrent_seq2seq writes one text while it reads "
          "another; choose a task that gives it both."
        )
      memory = self.encode(tokens_BT)  # parameters depend on no length
    begun = carry
    if carry is None:
      begun = self.initial_carry(len(tokens_BT), 0)
    states = jax.tree.map(
      lambda own, first: jnp.where(begun.begun_B[:, None], own, first),
      begun.states,
      memory.states,
    )
    fed_BD = begun.fed_BD
    draws = self.scheduled_sampling and self.has_rng("dropout")
    if self.is_initializing():
      tokens_BT = tokens_BT[:, :1]
      self.unembedding()
    if (self.input_feeding or draws) and tokens_BT.shape[1] > 1:
      made, weights_BTS, states, fed_BD = self._step_by_step(
        tokens_BT, states, fed_BD, memory, draws
      )
    else:
      x_BTE = self.embedding(tokens_BT)
      made, weights_BTS, states, fed_BD = self._advance(
        x_BTE, states, fed_BD, memory
      )
    if weights_BTS is not None:
      self.sow("intermediates", "attention_weights", weights_BTS)
    if carry is None:
      return made, None
    return made, Carry(states, fed_BD, jnp.ones(len(tokens_BT), bool))

  def _advance(
    self,
    x_BTE: Array,
    states: tuple[State, ...],
    fed_BD: Array,
    memory: Memory,
  ) -> tuple[PyTree, Array | None, tuple[State, ...], Array]:
    """Turn embeddings into what is returned; of one token with input feeding.

    Returns:
      What `__call__` does, the weights of attention, the states and what is
      fed in with the next token.
    """
    x = self.drop(x_BTE)
    if self.input_feeding:
      x = jnp.concatenate([x, fed_BD[:, None].astype(x.dtype)], axis=-1)
    after = []
    for layer, state in zip(self.layers, states, strict=True):
      x, state = layer(x, state)
      x = self.drop(x.astype(self.dtype))
      after.append(state)
    if self.attention == "none":
      return x, None, tuple(after), x[:, -1].astype(jnp.float32)
    average_BTE, weights_BTS = self.attend(
      x, memory.keys_BSD, memory.values_BSE, memory.mask_BS
    )
    both = jnp.concatenate([average_BTE, x], axis=-1)
    made_BTD = self.drop(jnp.tanh(self.combine(both)))
    fed_BD = made_BTD[:, -1].astype(jnp.float32)
    if not self.copy_mechanism:
      return made_BTD, weights_BTS, tuple(after), fed_BD
    inputs = jnp.concatenate([both, x_BTE], axis=-1)
    gate_BT = jax.nn.sigmoid(self.gate(inputs)[..., 0].astype(jnp.float32))
    sources_BTS = jnp.broadcast_to(memory.tokens_BS[:, None], weights_BTS.shape)
    made = Pointing(made_BTD, gate_BT, weights_BTS, sources_BTS)
    return made, weights_BTS, tuple(after), fed_BD

  def _step_by_step(
    self,
    tokens_BT: Array,
    states: tuple[State, ...],
    fed_BD: Array,
    memory: Memory,
    draws: bool,
  ) -> tuple[PyTree, Array | None, tuple[State, ...], Array]:
    """Do the same token after token, some of them the model's own."""

    def step(self, loop, token_B):
      states, fed_BD, own_B = loop
      if draws:
        key, shape = self.make_rng("dropout"), token_B.shape
        drawn_B = jax.random.bernoulli(key, self.scheduled_sampling, shape)
        token_B = jnp.where(drawn_B & (own_B >= 0), own_B, token_B)
      x_B1E = self.embedding(token_B[:, None])
      made, weights_B1S, states, fed_BD = self._advance(
        x_B1E, states, fed_BD, memory
      )
      if draws:
        logits_BV = jax.lax.stop_gradient(self.logits(made)[:, 0])
        own_B = jax.random.categorical(self.make_rng("dropout"), logits_BV)
      shown = jax.tree.map(lambda leaf: leaf[:, 0], (made, weights_B1S))
      return (states, fed_BD, own_B), shown

    scan = nn.scan(
      step,
      variable_broadcast="params",
      split_rngs={"params": False, "dropout": True},
      in_axes=1,
      out_axes=1,
    )
    none_B = jnp.full(len(tokens_BT), -1)
    (states, fed_BD, _), (made, weights_BTS) = scan(
      self, (states, fed_BD, none_B), tokens_BT
    )
    return made, weights_BTS, states, fed_BD

  def logits(self, hidden: PyTree) -> Array:
    """Score every next token, [B, T, V]; log-probabilities of copies."""
    if not self.copy_mechanism:
      return make_logits(hidden, self.unembedding())
    logits_BTV = make_logits(hidden.hidden_BTD, self.unembedding())
    return pointer_generator.log_probs(logits_BTV, hidden)

  def cross_entropy(
    self,
    hidden: PyTree,
    targets_BT: Array,
    weights_BT: Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
  ) -> CrossEntropy:
    """Sum the cross-entropy of targets; with copies nothing is smoothed."""
    if not self.copy_mechanism:
      return super().cross_entropy(
        hidden, targets_BT, weights_BT, label_smoothing, z_loss
      )
    logits_BTV = make_logits(hidden.hidden_BTD, self.unembedding())
    return pointer_generator.cross_entropy(
      logits_BTV, hidden, targets_BT, weights_BT
    )

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> Carry:
    """Make a carry that begins in what the memory says."""
    del capacity
    width, number = self.width, self._num_arrays
    empty = tuple(jnp.zeros((batch_size, width)) for _ in range(number))
    fed_BD = jnp.zeros((batch_size, self._made_width))
    begun_B = jnp.zeros(batch_size, bool)
    return Carry((empty,) * self.num_layers, fed_BD, begun_B)

  @nn.nowrap
  def attended(self, sown: PyTree) -> Array | None:
    """Return how much tokens attended to places of the source, [B, T, S].

    Args:
      sown: "intermediates" of a call.

    Returns:
      The weights; None if there is no attention.
    """
    (weights_BTS,) = sown.get("attention_weights", [None])
    return weights_BTS

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["RecurrentSeq2Seq", PyTree]:
    """Turn the kernels of the decoder once."""
    model, variables = super().for_decoding(variables, batch_size)
    if batch_size == 1:
      return model, variables
    params = dict(variables["params"])
    layer = self.make_layer(width=self.width, dtype=self.dtype, parent=None)
    for index in range(self.num_layers):
      name = f"layer_{index}"
      _, params[name] = layer.for_decoding(params[name], batch_size)
    return model.clone(is_transposed=True), {**variables, "params": params}

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token.

    Sources are taken to be as long as targets.
    """
    width, embedded = self.width, self.embedding_width
    layer = self.make_layer(width=width, parent=None)
    directions = 2 if self.bidirectional else 1
    half = self.make_layer(width=width // directions, parent=None)
    fed = self._made_width if self.input_feeding else 0
    inputs = [embedded + fed] + [width] * (self.num_layers - 1)
    seen = [embedded] + [width] * (self.num_encoder_layers - 1)
    total = sum(map(layer.flops_per_token, inputs))
    total += directions * sum(map(half.flops_per_token, seen))
    if self.attention != "none":
      inner = 2 if self.attention == "additive" else 1
      total += 2 * (inner + 1) * width * window + 4 * width * self._made_width
      total += (
        2 * width**2 * {"additive": 2, "general": 1}.get(self.attention, 0)
      )
    return total + 2 * self._made_width * self.vocab_size


def build(
  config: ConfigDict, vocab_size: int, source_vocab_size: int = 0
) -> RecurrentSeq2Seq:
  """Make the model that a config describes.

  Raises:
    UsageError: if a choice is not known or settings do not fit together.
  """
  model, loss = config.model, config.loss
  check_choice(model, "cell", CELLS)
  check_choice(model, "attention", ATTENTIONS)
  for key in ("initializer", "recurrent_initializer"):
    check_choice(model, key, INITIALIZERS)
  embedding_width = model.embedding_width or model.width
  if model.bidirectional and model.width % 2:
    raise UsageError(
      f"model.width={model.width} must be even for model.bidirectional=true."
    )
  if model.attention == "none":
    if model.tie_embeddings and embedding_width != model.width:
      raise UsageError(
        f"model.embedding_width={embedding_width} must equal model.width="
        f"{model.width} when model.tie_embeddings is true and "
        "model.attention=none."
      )
    if model.copy_mechanism:
      raise UsageError(
        "model.copy_mechanism=true needs attention to copy by; choose a "
        "model.attention that is not none."
      )
  if model.copy_mechanism and (loss.label_smoothing or loss.z_loss):
    raise UsageError(
      "model.copy_mechanism=true has no logits to smooth; set "
      "loss.label_smoothing=0 and loss.z_loss=0."
    )
  if (
    model.copy_mechanism
    and "seq2seq" in config
    and config.seq2seq.target_tokenizer
  ):
    raise UsageError(
      "model.copy_mechanism=true needs one vocabulary of both texts; set "
      "seq2seq.target_tokenizer to nothing."
    )
  return RecurrentSeq2Seq(
    vocab_size=vocab_size,
    embedding_width=embedding_width,
    make_layer=functools.partial(
      RecurrentLayer,
      cell=model.cell,
      initializer=model.initializer,
      recurrent_initializer=model.recurrent_initializer,
      norm_epsilon=model.norm_epsilon,
    ),
    num_layers=model.num_layers,
    num_encoder_layers=model.num_encoder_layers or model.num_layers,
    width=model.width,
    bidirectional=model.bidirectional,
    attention=model.attention,
    source_vocab_size=source_vocab_size,
    input_feeding=model.input_feeding,
    copy_mechanism=model.copy_mechanism,
    scheduled_sampling=model.scheduled_sampling,
    dropout=model.dropout,
    tie_embeddings=model.tie_embeddings,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
