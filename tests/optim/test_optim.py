# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmjax.errors import UsageError
from lmjax.optim.averaging import averaged_params
from lmjax.optim.optimizers import OPTIMIZERS, make_optimizer
from lmjax.optim.schedules import SCHEDULES, make_schedule
from lmjax.tree import named_leaves

PARAMS = {"up": {"kernel": jnp.array([2.0, -1.0]), "bias": jnp.array([3.0])}}
GRADS = {"up": {"kernel": jnp.array([0.1, 0.2]), "bias": jnp.array([-0.3])}}


def optim_config(tiny_config, **changes):
  config = tiny_config("lstm").optim
  plain = dict(
    schedule="constant",
    warmup_steps=0,
    clip_norm=0.0,
    learning_rate=0.1,
    weight_decay=0.0,
  )
  config.update({**plain, **changes})
  return config


def take_steps(optimizer, params, grads, count, value=1.0):
  opt_state = optimizer.init(params)
  for _ in range(count):
    updates, opt_state = optimizer.update(
      grads,
      opt_state,
      params,
      value=jnp.array(value),
      grad_norm=optax.tree.norm(grads),
    )
    params = optax.apply_updates(params, updates)
  return params, opt_state


def lr_multipliers(config, steps, num_steps=100):
  schedule = make_schedule(config, num_steps)
  return [float(schedule(step)) for step in steps]


def test_schedules_pass_through_their_known_points(tiny_config):
  def at(name, steps, **changes):
    config = optim_config(
      tiny_config, schedule=name, warmup_steps=10, **changes
    )
    return np.array(lr_multipliers(config, steps)) / config.learning_rate

  warmup = [0.1, 0.2, 1.0]
  for name in SCHEDULES:
    if name != "inverse_sqrt":
      np.testing.assert_allclose(at(name, [0, 1, 9]), warmup, rtol=1e-6)
  np.testing.assert_allclose(at("constant", [50, 100]), [1, 1])
  half = 0.1 + 0.9 / 2
  np.testing.assert_allclose(
    at("cosine", [10, 55, 100, 200]), [1, half, 0.1, 0.1], rtol=1e-6
  )
  np.testing.assert_allclose(
    at("wsd", [80, 90, 100], decay_fraction=0.2), [1, 0.55, 0.1], rtol=1e-6
  )
  np.testing.assert_allclose(
    at("inverse_sqrt", [10, 40, 160]), [1, 0.5, 0.25], rtol=1e-6
  )


def test_decay_steps_end_the_schedule_before_the_run(tiny_config):
  config = optim_config(tiny_config, schedule="cosine", decay_steps=20)
  assert lr_multipliers(config, [20]) == lr_multipliers(config, [99])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_the_same_for_every_optimizer(name, tiny_config):
  config = optim_config(tiny_config, name=name, weight_decay=0.5)
  zeros = jax.tree.map(jnp.zeros_like, GRADS)
  params, _ = take_steps(make_optimizer(config, 9), PARAMS, zeros, 1)
  np.testing.assert_allclose(params["up"]["kernel"], [1.9, -0.95], rtol=1e-6)
  np.testing.assert_array_equal(params["up"]["bias"], [3.0])


def test_first_steps_follow_the_formulas(tiny_config):
  expected = {  # Adam's first step is the sign; momentum adds up
    "adamw": lambda g: -0.1 * jnp.sign(g),
    "adagrad": lambda g: -0.1 * jnp.sign(g),
    "sgd": lambda g: -0.1 * g,
  }
  assert expected.keys() == OPTIMIZERS.keys()
  for name, first in expected.items():
    config = optim_config(tiny_config, name=name, weight_decay=0.0)
    params, _ = take_steps(make_optimizer(config, 9), PARAMS, GRADS, 1)
    jax.tree.map(
      lambda p, q, g, first=first: np.testing.assert_allclose(
        q - p, first(g), atol=1e-5
      ),
      PARAMS,
      params,
      GRADS,
    )


def test_sgd_momentum(tiny_config):
  config = optim_config(tiny_config, name="sgd", momentum=0.5)
  params, _ = take_steps(make_optimizer(config, 9), PARAMS, GRADS, 2)
  moved = PARAMS["up"]["bias"] - params["up"]["bias"]
  np.testing.assert_allclose(moved, -0.3 * 0.1 * (1 + 1.5), rtol=1e-5)


def test_adagrad_divides_by_the_root_of_all_squares(tiny_config):
  config = optim_config(tiny_config, name="adagrad")
  params, _ = take_steps(make_optimizer(config, 9), PARAMS, GRADS, 3)
  moved = PARAMS["up"]["bias"] - params["up"]["bias"]
  expected = -0.1 * (1 + 1 / 2**0.5 + 1 / 3**0.5)
  np.testing.assert_allclose(moved, expected, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_frozen_has_no_update_no_decay_no_moment(tiny_config, name):
  config = optim_config(
    tiny_config, name=name, freeze="kernel$", weight_decay=0.5, clip_norm=0.1
  )
  params, opt_state = take_steps(make_optimizer(config, 9), PARAMS, GRADS, 2)
  np.testing.assert_array_equal(params["up"]["kernel"], PARAMS["up"]["kernel"])
  assert not [leaf for leaf in named_leaves(opt_state) if "kernel" in leaf]
  # The others learn as if the frozen ones were not there, clipping as well.
  config.freeze = ""
  alone = {"up": {"bias": PARAMS["up"]["bias"]}}
  grads = {"up": {"bias": GRADS["up"]["bias"]}}
  expected, _ = take_steps(make_optimizer(config, 9), alone, grads, 2)
  np.testing.assert_allclose(
    params["up"]["bias"], expected["up"]["bias"], rtol=1e-6
  )


def test_a_pattern_that_freezes_nothing_is_refused(tiny_config):
  config = optim_config(tiny_config, freeze="embeding")
  message = "optim.freeze=embeding matches no parameter; .* up/bias, up/kernel"
  with pytest.raises(UsageError, match=message):
    make_optimizer(config, 9).init(PARAMS)


def test_clipping_keeps_the_direction_and_bounds_the_norm(tiny_config):
  config = optim_config(
    tiny_config, name="sgd", clip_norm=0.01, weight_decay=0.0
  )
  params, _ = take_steps(make_optimizer(config, 9), PARAMS, GRADS, 1)
  moved = jax.tree.map(jnp.subtract, PARAMS, params)
  np.testing.assert_allclose(optax.tree.norm(moved), 0.1 * 0.01, rtol=1e-3)


def test_the_average_follows_the_parameters(tiny_config):
  config = optim_config(tiny_config, name="sgd", momentum=0.0, ema_decay=0.75)
  params, opt_state = take_steps(make_optimizer(config, 9), PARAMS, GRADS, 2)
  start, step = 3.0, 0.03  # of the bias
  average = 0.75 * (0.75 * start + 0.25 * (start + step))
  average += 0.25 * (start + 2 * step)
  found = averaged_params(opt_state)["up"]["bias"]
  np.testing.assert_allclose(found, average, rtol=1e-6)
  np.testing.assert_allclose(params["up"]["bias"], start + 2 * step, rtol=1e-6)
  plain = optim_config(tiny_config, name="sgd")
  assert averaged_params(make_optimizer(plain, 9).init(PARAMS)) is None


def test_averaging_begins_when_the_loss_stalls(tiny_config):
  """Losses of periods of two steps against the algorithm of the paper."""
  config = optim_config(
    tiny_config, name="sgd", momentum=0.0, nt_asgd_every=2, nt_asgd_patience=2
  )
  optimizer = make_optimizer(config, 99)
  losses = [5.0, 4.0, 4.5, 4.9, 3.9, 4.1, 3.0, 3.0, 3.0]
  logs, begin = [], None
  for period, loss in enumerate(losses):
    if len(logs) > 2 and loss > min(logs[:-2]) and begin is None:
      begin = 2 * period + 1  # the second step of the period
    logs.append(loss)
  assert begin == 11  # 4.1 is above 4.0, and nothing before was
  params, opt_state, iterates = PARAMS, optimizer.init(PARAMS), []
  for step in range(2 * len(losses)):
    value = losses[step // 2] + (0.5 if step % 2 else -0.5)
    updates, opt_state = optimizer.update(
      GRADS, opt_state, params, value=jnp.array(value)
    )
    params = optax.apply_updates(params, updates)
    iterates.append(params["up"]["bias"])
    expected = np.mean(iterates[begin:] or iterates[-1:], axis=0)
    found = averaged_params(opt_state)["up"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("value", "shrinks"), [(1.0, True), (None, False)])
def test_a_plateau_lowers_the_rate(tiny_config, value, shrinks):
  config = optim_config(
    tiny_config,
    name="sgd",
    momentum=0.0,
    plateau_factor=0.5,
    plateau_patience=2,
    plateau_every=1,
  )
  optimizer = make_optimizer(config, 9)
  opt_state, moves = optimizer.init(PARAMS), []
  for step in range(6):
    loss = jnp.array(value or 10.0 - step)
    updates, opt_state = optimizer.update(GRADS, opt_state, PARAMS, value=loss)
    moves.append(float(updates["up"]["bias"][0]))
  assert (moves[-1] <= 0.5 * moves[0] + 1e-9) == shrinks


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_of_its_own_scales_the_update_exactly(tiny_config, name):
  """Powers of two lose nothing; decay of adamw is a part of the update."""
  changes = dict(name=name, weight_decay=0.5, clip_norm=0.1)
  lr_multipliers = (("kernel$", 0.5), ("up/", 0.0))  # the first that matches
  params = {**PARAMS, "down": {"kernel": jnp.array([1.0]), "bias": jnp.ones(1)}}
  grads = {**GRADS, "down": {"kernel": jnp.array([0.3]), "bias": jnp.ones(1)}}

  def first_update(lr_multipliers):
    config = optim_config(tiny_config, lr_multipliers=lr_multipliers, **changes)
    optimizer = make_optimizer(config, 9)
    updates, _ = optimizer.update(
      grads, optimizer.init(params), params, value=jnp.array(1.0)
    )
    return named_leaves(updates)

  plain, scaled = first_update(()), first_update(lr_multipliers)
  for name, factor in (
    ("up/kernel", 0.5),
    ("up/bias", 0.0),
    ("down/kernel", 0.5),
    ("down/bias", 1.0),
  ):
    assert np.abs(plain[name]).min() > 0
    np.testing.assert_array_equal(scaled[name], factor * plain[name])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_go_with_schedule_frozen_parameters_and_average(
  tiny_config, schedule
):
  changes = dict(
    name="adamw",
    schedule=schedule,
    warmup_steps=2,
    freeze="kernel$",
    ema_decay=0.5,
    plateau_factor=0.5,
  )

  def after(lr_multipliers):
    config = optim_config(tiny_config, lr_multipliers=lr_multipliers, **changes)
    return take_steps(make_optimizer(config, 9), PARAMS, GRADS, 2)

  plain, _ = after(())
  params, opt_state = after((("bias$", 0.25),))
  np.testing.assert_array_equal(params["up"]["kernel"], PARAMS["up"]["kernel"])
  moved, expected = (
    p["up"]["bias"] - PARAMS["up"]["bias"] for p in (params, plain)
  )
  np.testing.assert_allclose(moved, 0.25 * expected, rtol=1e-5)
  average = averaged_params(opt_state)["up"]["bias"]
  assert PARAMS["up"]["bias"] < average < params["up"]["bias"]


@pytest.mark.parametrize(
  ("lr_multipliers", "named"),
  [((("embeding", 0.1),), "embeding"), ((("up", 1.0), ("bias", 0.1)), "bias")],
)
def test_rates_of_no_parameter_are_refused(tiny_config, lr_multipliers, named):
  config = optim_config(tiny_config, lr_multipliers=lr_multipliers)
  message = (
    f"optim.lr_multipliers: {named} is not the first .* up/bias, up/kernel"
  )
  with pytest.raises(UsageError, match=message):
    make_optimizer(config, 9).init(PARAMS)
