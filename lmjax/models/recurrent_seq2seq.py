# SPDX-License-Identifier: Apache-2.0
"""The recurrent sequence-to-sequence model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.dense import Dense
from lmjax.layers.embeddings import OutputLayer, TokenEmbedding, make_logits
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.layers.stateful import State
from lmjax.models.language_model import LanguageModel
from lmjax.models.recurrent_decoder import (
  DecoderCarry,
  DecoderStep,
  Memory,
  RecurrentDecoder,
)
from lmjax.models.recurrent_encoder import RecurrentEncoder
from lmjax.ops import pointer_generator
from lmjax.ops.linear_cross_entropy import CrossEntropy
from lmjax.types import Array, PyTree


class RecurrentSeq2Seq(LanguageModel, kw_only=True):
  """Recurrent encoder and decoder (Sutskever et al. 2014, arXiv:1409.3215).

  With attention as in Luong et al. 2015 (arXiv:1508.04025). The final states of
  the encoder, through an affine map for each decoder layer (the bridge), are
  the initial states of the decoder.

  All tokens of a target are processed at once, except with input feeding and in
  scheduled sampling, where a step depends on the output of the one before.

  With `mutable=["intermediates"]` the attention weights, [B, T, S], are sown as
  "attention_weights".

  >>> memory = model.apply(variables, sources_BS, mask_BS, method="encode")
  >>> hidden, carry = model.apply(variables, tokens_BT, carry, memory=memory)

  Attributes:
    vocab_size: vocabulary size V of the targets.
    embedding_width: width E of the token embeddings.
    encoder: recurrent layers over the source.
    decoder: recurrent layers over the target, with attention.
    source_vocab_size: vocabulary size of sources with an embedding table of
      their own; 0 for a shared vocabulary.
    scheduled_sampling: in training, the fraction of inputs sampled from the
      model (Bengio et al. 2015, arXiv:1506.03099).
    tie_embeddings: whether the output layer uses the embedding table.
    embedding_scale: standard deviation of the embeddings at initialization.
  """

  kinds = ("encoder_decoder",)
  max_context = None  # a recurrent state has no limit

  vocab_size: int
  embedding_width: int
  encoder: RecurrentEncoder
  decoder: RecurrentDecoder
  source_vocab_size: int = 0
  scheduled_sampling: float = 0.0
  tie_embeddings: bool = False
  embedding_scale: float = 0.1

  def setup(self):
    """Create the layers."""
    # Parameters of the decoder keep the paths layer_0/..., attend/..., without
    # a prefix, beside embedding/... and encoder/...
    nn.share_scope(self, self.decoder)
    embed = functools.partial(
      TokenEmbedding,
      width=self.embedding_width,
      init_scale=self.embedding_scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    self.embedding = embed(self.vocab_size)
    if self.source_vocab_size:
      self.source_embedding = embed(self.source_vocab_size)
    bridge = functools.partial(
      Dense,
      (self.decoder.width,),
      use_bias=True,
      initializer="glorot_uniform",
      dtype=jnp.float32,  # as the states
      param_dtype=self.param_dtype,
    )
    self.bridges = [
      [bridge() for _ in range(self.decoder.state_size)]
      for _ in range(self.decoder.num_layers)
    ]
    if not self.tie_embeddings:
      self.output = OutputLayer(
        self.vocab_size,
        self.decoder.output_width,
        param_dtype=self.param_dtype,
      )

  @property
  def dtype(self) -> jnp.dtype:
    """Dtype of the matmuls."""
    return self.decoder.dtype

  @property
  def param_dtype(self) -> jnp.dtype:
    """Dtype of the parameters."""
    return self.decoder.param_dtype

  def encode(self, sources_BS: Array, mask_BS: Array | None = None) -> Memory:
    """Encode source texts.

    Args:
      sources_BS: int tokens.
      mask_BS: true on tokens, false on padding; None for no padding.
    """
    if mask_BS is None:
      mask_BS = jnp.ones(sources_BS.shape, bool)
    mask_BS = mask_BS.astype(bool)
    table = self.source_embedding if self.source_vocab_size else self.embedding
    values_BSE, final_states = self.encoder.apply_layers(
      table(sources_BS), mask_BS
    )
    states = []
    for index, bridges in enumerate(self.bridges):
      # A decoder with more layers than the encoder repeats its top layer.
      directions = final_states[min(index, len(final_states) - 1)]
      joined = [
        jnp.concatenate(arrays, axis=-1)
        for arrays in zip(*directions, strict=True)
      ]
      hidden, *cell = [
        bridge(array) for bridge, array in zip(bridges, joined, strict=True)
      ]
      # tanh keeps hidden vectors in their range (-1, 1); cells have no bound.
      states.append((jnp.tanh(hidden), *cell))
    keys_BSD = self.decoder.keys(values_BSE)
    return Memory(tuple(states), values_BSE, keys_BSD, mask_BS, sources_BS)

  def __call__(
    self,
    tokens_BT: Array,
    carry: DecoderCarry | None = None,
    resets_BT: None = None,
    memory: Memory | None = None,
  ) -> tuple[PyTree, DecoderCarry | None]:
    """Process target tokens that follow those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: the carry of the tokens before; None for no tokens before.
      resets_BT: None; each target is one document.
      memory: the output of `encode`.

    Returns:
      hidden_BTD in `dtype`, or a Pointing with the copy mechanism, and the
      carry after the last token, or None if none was given.

    Raises:
      UsageError: if no memory is given.
    """
    assert resets_BT is None, "a target is one document"
    if memory is None:
      if not self.is_initializing():
        raise UsageError(
          "model.name=recurrent_seq2seq needs source sequences; choose a task "
          "that has them, such as seq2seq."
        )
      memory = self.encode(tokens_BT)  # no parameter depends on the source
    # Even without a carry a scan over steps needs one to start from.
    start = carry
    if carry is None:
      start = self.decoder.initial_carry(len(tokens_BT))
    states = jax.tree.map(
      lambda own, first: jnp.where(start.started_B[:, None], own, first),
      start.states,
      memory.states,
    )
    if self.is_initializing():
      # One token is enough to create all parameters, and needs no loop.
      tokens_BT = tokens_BT[:, :1]
      self.unembedding()
    samples = self.scheduled_sampling and self.has_rng("dropout")
    if (self.decoder.input_feeding or samples) and tokens_BT.shape[1] > 1:
      result = self._step_by_step(
        tokens_BT, states, start.feed_BD, memory, samples
      )
    else:
      x_BTE = self.embedding(tokens_BT)
      result = self.decoder(x_BTE, states, start.feed_BD, memory)
    if result.weights_BTS is not None:
      self.sow("intermediates", "attention_weights", result.weights_BTS)
    if carry is None:
      return result.output, None
    started_B = jnp.ones(len(tokens_BT), bool)
    return result.output, DecoderCarry(result.states, result.feed_BD, started_B)

  def _step_by_step(
    self,
    tokens_BT: Array,
    states: tuple[State, ...],
    feed_BD: Array,
    memory: Memory,
    samples: bool,
  ) -> DecoderStep:
    """Process one token at a time, replacing some by samples of the model."""

    def step(self, loop_state, token_B):
      states, feed_BD, sampled_B = loop_state
      if samples:
        key, shape = self.make_rng("dropout"), token_B.shape
        replace_B = jax.random.bernoulli(key, self.scheduled_sampling, shape)
        # Before the first step nothing has been sampled: -1.
        token_B = jnp.where(replace_B & (sampled_B >= 0), sampled_B, token_B)
      x_B1E = self.embedding(token_B[:, None])
      result = self.decoder(x_B1E, states, feed_BD, memory)
      if samples:
        logits_BV = jax.lax.stop_gradient(self.logits(result.output)[:, 0])
        sampled_B = jax.random.categorical(self.make_rng("dropout"), logits_BV)
      outputs = jax.tree.map(
        lambda leaf: leaf[:, 0], (result.output, result.weights_BTS)
      )
      return (result.states, result.feed_BD, sampled_B), outputs

    # Parameters are shared by all steps, and each has its own dropout masks.
    scan = nn.scan(
      step,
      variable_broadcast="params",
      split_rngs={"params": False, "dropout": True},
      in_axes=1,
      out_axes=1,
    )
    none_B = jnp.full(len(tokens_BT), -1)
    (states, feed_BD, _), (output, weights_BTS) = scan(
      self, (states, feed_BD, none_B), tokens_BT
    )
    return DecoderStep(output, weights_BTS, states, feed_BD)

  def logits(self, hidden: PyTree) -> Array:
    """Return the logits of the next token, float32 [B, T, V].

    With the copy mechanism they are log-probabilities.
    """
    if not self.decoder.copy_mechanism:
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
    """Return sums over targets; see LanguageModel.

    The copy mechanism ignores `label_smoothing` and `z_loss`: `build` rejects
    them, because a mixture of two distributions has no logits.
    """
    if not self.decoder.copy_mechanism:
      return super().cross_entropy(
        hidden, targets_BT, weights_BT, label_smoothing, z_loss
      )
    logits_BTV = make_logits(hidden.hidden_BTD, self.unembedding())
    return pointer_generator.cross_entropy(
      logits_BTV, hidden, targets_BT, weights_BT
    )

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> DecoderCarry:
    """Return the carry before the first token; its size is fixed."""
    del capacity
    return self.decoder.initial_carry(batch_size)

  @nn.nowrap
  def attended(self, sown: PyTree) -> Array | None:
    """Return the attention weights [B, T, S], or None without attention.

    Args:
      sown: the collection "intermediates" of a call.
    """
    (weights_BTS,) = sown.get("attention_weights", [None])
    return weights_BTS

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["RecurrentSeq2Seq", PyTree]:
    """Transpose the kernels of the decoder once; see LanguageModel."""
    model, variables = super().for_decoding(variables, batch_size)
    decoder, params = self.decoder.transpose_kernels(
      variables["params"], batch_size
    )
    return model.clone(decoder=decoder), {**variables, "params": params}

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per target token of the forward pass.

    Sources are assumed to be as long as targets.
    """
    output = 2 * self.decoder.output_width * self.vocab_size
    return (
      self.encoder.flops_per_token(seq_len)
      + self.decoder.flops_per_token(self.embedding_width, seq_len)
      + output
    )


def build(
  config: ConfigDict, vocab_size: int, source_vocab_size: int = 0
) -> RecurrentSeq2Seq:
  """Build the model of a config.

  Args:
    config: a config with model.name=recurrent_seq2seq.
    vocab_size: vocabulary size V of the targets.
    source_vocab_size: vocabulary size of the sources; 0 for a shared one.

  Raises:
    UsageError: if widths or the copy mechanism do not fit the other settings.
  """
  _check(config)
  model = config.model
  embedding_width = model.embedding_width or model.width
  # A tied table scores attentional vectors, which can have any width.
  tied = model.tie_embeddings and model.attention != "none"
  dtypes = dict(
    dtype=jnp.dtype(model.dtype), param_dtype=jnp.dtype(model.param_dtype)
  )
  # XLA's CPU backend has no gradient of single steps in bfloat16.
  steps = model.input_feeding or model.scheduled_sampling
  make_layer = functools.partial(
    RecurrentLayer,
    cell=model.cell,
    initializer=model.initializer,
    recurrent_initializer=model.recurrent_initializer,
    norm_epsilon=model.norm_epsilon,
  )
  return RecurrentSeq2Seq(
    vocab_size=vocab_size,
    embedding_width=embedding_width,
    source_vocab_size=source_vocab_size,
    scheduled_sampling=model.scheduled_sampling,
    tie_embeddings=model.tie_embeddings,
    encoder=RecurrentEncoder(
      vocab_size=source_vocab_size or vocab_size,
      embedding_width=embedding_width,
      make_layer=make_layer,
      num_layers=model.num_encoder_layers or model.num_layers,
      width=model.width // (2 if model.bidirectional else 1),
      bidirectional=model.bidirectional,
      dropout=model.dropout,
      **dtypes,
    ),
    decoder=RecurrentDecoder(
      make_layer=make_layer,
      num_layers=model.num_layers,
      width=model.width,
      output_width=embedding_width if tied else model.width,
      attention=model.attention,
      input_feeding=model.input_feeding,
      copy_mechanism=model.copy_mechanism,
      dropout=model.dropout,
      layer_dtype=jnp.float32 if steps else jnp.dtype(model.dtype),
      **dtypes,
    ),
  )


def _check(config: ConfigDict) -> None:
  """Check settings that depend on each other."""
  model, loss = config.model, config.loss
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
        "model.copy_mechanism=true copies by attention weights; choose a "
        "model.attention other than none."
      )
  if model.copy_mechanism and (loss.label_smoothing or loss.z_loss):
    raise UsageError(
      "model.copy_mechanism=true has no logits to regularize; set "
      "loss.label_smoothing=0 and loss.z_loss=0."
    )
  if (
    model.copy_mechanism
    and "seq2seq" in config
    and config.seq2seq.target_tokenizer
  ):
    raise UsageError(
      "model.copy_mechanism=true needs one vocabulary for sources and targets; "
      "leave seq2seq.target_tokenizer empty."
    )
