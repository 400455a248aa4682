# SPDX-License-Identifier: Apache-2.0
"""Feed-forward layers of which each token visits a few: mixture of experts.

Dimension letters:

    P  rows of all blocks, padding included
    Q  rows of one block
    R  tokens: batch × time
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.dense import Affine, Parameters
from lmjax.layers.feedforward import FEED_FORWARDS
from lmjax.ops.grouped_matmul import grouped_matmul
from lmjax.ops.layout import mean_over_rows, on_own_rows
from lmjax.ops.routing import Plan, plan_for_all, plan_within
from lmjax.types import Array


@dataclasses.dataclass(frozen=True)
class Experts:
  """How many experts there are and how tokens find them.

  Attributes:
    number: number X of experts.
    per_token: how many of them each token visits.
    capacity_factor: in training an expert takes up to this multiple of the mean
      number of a row's assignments; later tokens of the row are dropped, so it
      skips them. 0 for no limit.
    balance_loss: weight of the loss on uneven use of experts.
    router_z_loss: weight of the loss on large logits of the router.
  """

  number: int
  per_token: int
  capacity_factor: float = 0.0
  balance_loss: float = 0.0
  router_z_loss: float = 0.0


class MixtureOfExperts(nn.Module):
  """Send each token through its most probable experts (Shazeer et al. 2017).

  arXiv:1701.06538. A token's output is the sum of its experts', weighted by
  the router's probabilities: of several experts normalized to one (Lepikhin et
  al. 2020, arXiv:2006.16668), of a single one as it is, so that the router
  learns (Switch Transformer; Fedus et al. 2021, arXiv:2101.03961).

  Into "losses" are sown the load-balancing loss of the Switch Transformer,
  which is its weight if experts are used evenly, and the router's z-loss
  (Zoph et al. 2022, arXiv:2202.08906), both of the batch of all devices.

  Capacity limits hold in training alone, while there is a key for dropout. A
  limit never lets a token depend on later ones, but on how long its row is;
  without it, in evaluation and decoding, tokens do not depend on each other.

  Attributes:
    experts: how many there are and how tokens find them.
    kind: what happens between the layers of each, one of FEED_FORWARDS.
    width: inner width F of each.
    use_bias: whether their layers have biases.
    init_scale: standard deviation of the first kernels, and the router's.
    out_scale: standard deviation of the kernels that write to the residual.
    initializer: initializer of the kernels; all but "normal" ignore the scales.
    dtype: dtype of the matmuls; the router computes in float32.
    param_dtype: dtype of the parameters.
  """

  experts: Experts
  kind: str
  width: int
  use_bias: bool = False
  init_scale: float = 0.02
  out_scale: float = 0.02
  initializer: str = "normal"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    """Transform each position, [B, T, D] to [B, T, D]."""
    width = x_BTD.shape[-1]
    gates_BTN, chosen_BTN = self.choose(x_BTD)
    names = ("gate", "up") if FEED_FORWARDS[self.kind].gated else ("up",)
    layers = {
      name: self.stacked(width, self.width, self.init_scale, name)
      for name in names
    }
    layers["down"] = self.stacked(self.width, width, self.out_scale, "down")
    rows = (x_BTD.astype(self.dtype), gates_BTN, chosen_BTN)
    return on_own_rows(self.visit, rows, layers)

  def choose(self, x_BTD: Array) -> tuple[Array, Array]:
    """Choose experts for each token.

    Returns:
      Their weights, float32 [B, T, N], and their numbers.
    """
    number, per_token = self.experts.number, self.experts.per_token
    kernel_DX, _ = Affine(
      x_BTD.shape[-1:],
      (number,),
      init_scale=self.init_scale,
      initializer=self.initializer,
      param_dtype=self.param_dtype,
      name="router",
    )()
    highest = jax.lax.Precision.HIGHEST
    logits_BTX = jnp.matmul(
      x_BTD.astype(jnp.float32),
      kernel_DX.astype(jnp.float32),
      precision=highest,
    )
    gates_BTN, chosen_BTN = on_own_rows(
      lambda share_BTX, _: tuple(jax.lax.top_k(share_BTX, per_token)),
      jax.nn.softmax(logits_BTX),
      None,
    )
    if not self.is_initializing():
      self.add_losses(logits_BTX, chosen_BTN)
    if per_token > 1:
      gates_BTN /= gates_BTN.sum(-1, keepdims=True)
    return gates_BTN, chosen_BTN

  def add_losses(self, logits_BTX: Array, chosen_BTN: Array) -> None:
    """Sow what keeps the router balanced and small."""
    number = self.experts.number
    visits_BTX = jax.nn.one_hot(chosen_BTN, number).mean(2)
    share_BTX = jax.nn.softmax(logits_BTX)
    visits_X, share_X = (
      mean_over_rows(each.mean((0, 1))) for each in (visits_BTX, share_BTX)
    )
    balance = number * jnp.sum(visits_X * share_X)
    log_z_BT = jax.nn.logsumexp(logits_BTX, axis=-1)
    size = mean_over_rows(jnp.mean(log_z_BT**2))
    self.sow("losses", "balance", self.experts.balance_loss * balance)
    self.sow("losses", "router_z", self.experts.router_z_loss * size)

  def stacked(
    self, inputs: int, features: int, scale: float, name: str
  ) -> Parameters:
    """Make one layer of all experts: kernels [X, inputs, features], biases."""
    affine = nn.vmap(
      Affine,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      axis_size=self.experts.number,
    )
    return affine(
      (inputs,),
      (features,),
      use_bias=self.use_bias,
      init_scale=scale,
      initializer=self.initializer,
      param_dtype=self.param_dtype,
      name=name,
    )()

  def visit(
    self, rows: tuple[Array, Array, Array], layers: dict[str, Parameters]
  ) -> Array:
    """Let experts work on the tokens that chose them."""
    x_BTD, gates_BTN, chosen_BTN = rows
    per_token = self.experts.per_token
    plan = self.plan(chosen_BTN)
    number = len(plan.slot_A)
    num_slots = len(plan.expert_N) * plan.block
    who_P = (
      jnp.full(num_slots, number)
      .at[plan.slot_A]
      .set(jnp.arange(number), mode="drop")
    )
    x_RD = x_BTD.reshape(-1, x_BTD.shape[-1])
    slots_PD = jnp.take(
      x_RD, who_P // per_token, axis=0, mode="fill", fill_value=0
    )
    x_NQD = slots_PD.reshape(-1, plan.block, x_RD.shape[1])

    def apply(x_NQD: Array, name: str) -> Array:
      kernels_XDF, biases_XF = layers[name]
      y_NQF = grouped_matmul(
        x_NQD, kernels_XDF.astype(self.dtype), plan.expert_N
      )
      if biases_XF is not None:
        y_NQF += biases_XF.astype(y_NQF.dtype)[plan.expert_N][:, None]
      return y_NQF.astype(self.dtype)

    kind = FEED_FORWARDS[self.kind]
    inner_NQF = apply(x_NQD, "gate" if kind.gated else "up")
    inner_NQF = kind.activate(inner_NQF)
    if kind.gated:
      inner_NQF *= apply(x_NQD, "up")
    y_PD = apply(inner_NQF, "down").reshape(num_slots, -1)
    y_AD = jnp.take(y_PD, plan.slot_A, axis=0, mode="fill", fill_value=0)
    y_BTND = y_AD.reshape(*gates_BTN.shape, -1).astype(jnp.float32)
    return jnp.einsum("btn,btnd->btd", gates_BTN, y_BTND).astype(self.dtype)

  def plan(self, chosen_BTN: Array) -> Plan:
    """Give the assignments their slots."""
    experts = self.experts
    batch, time, per_token = chosen_BTN.shape
    if not (experts.capacity_factor and self.has_rng("dropout")):
      return plan_for_all(chosen_BTN.reshape(-1), experts.number)
    fair = time * per_token / experts.number
    capacity = min(time, math.ceil(experts.capacity_factor * fair))
    return plan_within(chosen_BTN.reshape(batch, -1), experts.number, capacity)
