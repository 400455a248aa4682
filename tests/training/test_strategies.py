# SPDX-License-Identifier: Apache-2.0
"""However the work is divided, the same numbers come out."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lmjax.config import defaults
from lmjax.config.finalize import finalize
from lmjax.errors import UserError
from lmjax.layers.moe import Experts
from lmjax.models import MODELS
from lmjax.models.sharding_rules import SHARDING_RULES
from lmjax.optim.optimizers import make_optimizer
from lmjax.parallel import STRATEGIES
from lmjax.parallel.jit import JitStrategy
from lmjax.parallel.mesh import mesh_sizes
from lmjax.parallel.pmap import PmapStrategy
from lmjax.parallel.rules import check_rules, partition_spec, tree_shardings
from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.train_state import create_state
from lmjax.training.step import eval_step, train_step
from lmjax.tree import named_leaves
from tests.tiny_models import clone, recurrent, transformer

B, T, V, STEPS = 16, 5, 16, 3


def rules_of(name):
  """Return the sharding rules of a case of TASKS or WHOLE."""
  return SHARDING_RULES["lstm" if name.startswith("lstm") else "transformer"]


SIZES = dict(num_layers=2, max_context=6, feed_forward="swiglu", norm="rms")
TASKS = {
  "lstm, stateful": (recurrent("lstm", V), True),
  "transformer, stateful": (transformer(V, **SIZES), True),
  "transformer, stateless": (
    transformer(V, positions="learned", **SIZES),
    False,
  ),
}
# What goes by the batch as a whole, of all devices but not of all parts.
WHOLE = {
  "batch norm, experts, stateful": (
    transformer(
      V,
      num_layers=2,
      max_context=6,
      num_kv_heads=2,
      positions="relative",
      norm="batch",
      use_bias=False,  # whose gradients batch norms make zero, but for noise
      experts=Experts(3, 2, balance_loss=0.3, router_z_loss=0.1),
    ),
    True,
  ),
}


def batches():
  """Make batches whose rows have very uneven weights, some none at all."""
  rng = np.random.default_rng(0)
  for _ in range(STEPS):
    weights = rng.random((B, T)) * (rng.random((B, 1)) < 0.6)
    tokens = rng.integers(0, V, (2, B, T)).astype(np.int32)
    yield dict(
      inputs=tokens[0],
      targets=tokens[1],
      weights=weights.astype(np.float32),
      resets=rng.random((B, T)) < 0.2,
    )


def make(name):
  model, stateful = (TASKS | WHOLE)[name]
  task = LanguageModeling(model, np.ones(V, np.float32), "byte", stateful)
  config = defaults.get_config(model="lstm").optim
  config.learning_rate, config.warmup_steps = 0.01, 0
  optimizer = make_optimizer(config, STEPS)

  def make_state():
    key = jax.random.key(0)
    variables = task.init(key, {"inputs": np.zeros((B, T), np.int32)})
    return create_state(key, variables, task.initial_carry(B), optimizer)

  return task, optimizer, make_state


def run(name, strategy, num_microbatches=1):
  """Train a few steps, then evaluate; return all that came out."""
  task, optimizer, make_state = make(name)
  state = strategy.create(make_state)
  step = strategy.compile_step(
    functools.partial(
      train_step,
      task=task,
      optimizer=optimizer,
      num_microbatches=num_microbatches,
    ),
    state,
  )
  evaluate = strategy.compile_step(
    functools.partial(eval_step, task=task), state, donate=False
  )
  results = {}
  for index, batch in enumerate(batches()):
    placed = strategy.shard_batch(batch)
    _, sums = evaluate(state, placed)
    results[f"eval {index}"] = sums.means()
    state, sums = step(state, placed)
    results[f"train {index}"] = sums.means()
  state = jax.device_get(strategy.gather(state))
  results["params"] = state.params
  results["collections"] = state.collections
  results["carry"] = state.carry
  return named_leaves(results)


@functools.cache
def one_device(name):
  return run(name, JitStrategy(jax.devices()[:1], dict(data=1)))


def agree(results, name, tolerance=1e-5):
  expected = one_device(name)
  assert results.keys() == expected.keys()
  for leaf, value in expected.items():
    np.testing.assert_allclose(
      results[leaf], value, atol=tolerance, err_msg=leaf
    )


@pytest.mark.parametrize(
  "kind, name",
  [
    ("data", "lstm, stateful"),
    ("fsdp", "transformer, stateful"),
    ("fsdp", "batch norm, experts, stateful"),
    ("pmap", "transformer, stateless"),
    ("pmap", "batch norm, experts, stateful"),
    *(
      pytest.param(kind, name, marks=pytest.mark.slow)
      for kind, name in (
        ("data", "batch norm, experts, stateful"),
        ("data", "transformer, stateful"),
        ("data", "transformer, stateless"),
        ("fsdp", "lstm, stateful"),
        ("fsdp", "transformer, stateless"),
        ("pmap", "lstm, stateful"),
        ("pmap", "transformer, stateful"),
      )
    ),
  ],
)
def test_four_devices_equal_one(name, kind):
  devices = jax.devices()[:4]
  strategy = {
    "data": lambda: JitStrategy(devices, dict(data=-1)),
    "fsdp": lambda: JitStrategy(devices, dict(data=-1, fsdp=2), rules_of(name)),
    "pmap": lambda: PmapStrategy(devices, dict(data=-1)),
  }[kind]()
  agree(run(name, strategy), name)


@pytest.mark.parametrize("name", TASKS)
def test_accumulated_parts_equal_one_batch(name):
  agree(run(name, JitStrategy(jax.devices()[:1], dict(data=1)), 4), name)


@pytest.mark.parametrize(
  "strategy",
  [
    lambda: PmapStrategy(jax.devices()[:2], dict(data=2)),
    lambda: JitStrategy(
      jax.devices()[:4], dict(data=2, fsdp=2), rules_of("lstm")
    ),
  ],
)
def test_accumulated_parts_on_many_devices_equal_one_batch(strategy):
  name = "lstm, stateful"
  agree(run(name, strategy(), 2), name)


@pytest.mark.parametrize("name", TASKS | WHOLE)
def test_devices_exchange_sums_alone(name):
  """What is gathered on every device is computed on every device."""
  task, optimizer, make_state = make(name)
  strategy = JitStrategy(jax.devices()[:2], dict(data=-1))
  state = strategy.create(make_state)
  step = functools.partial(
    train_step,
    task=task,
    optimizer=optimizer,
    num_microbatches=2,
  )
  batch = strategy.shard_batch(next(batches()))
  lowered = strategy.compile_step(step, state).lower(state, batch)
  program = lowered.compile().as_text()
  assert "all-reduce" in program
  for exchange in ("all-gather", "all-to-all", "collective-permute"):
    assert exchange not in program


@pytest.mark.parametrize("num_microbatches", [1, 2])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["lstm, stateful", "transformer, stateful"])
def test_a_step_keeps_every_dtype(name, param_dtype, num_microbatches):
  """Else it would compile twice, and a restored run would round otherwise."""
  model, stateful = TASKS[name]
  model = clone(model, param_dtype=jax.numpy.dtype(param_dtype))
  task = LanguageModeling(model, np.ones(V, np.float32), "byte", stateful)
  optimizer = make(name)[1]
  batch = next(batches())

  def make_state():
    variables = task.init(jax.random.key(0), batch)
    return create_state(
      jax.random.key(0), variables, task.initial_carry(B), optimizer
    )

  before = jax.eval_shape(make_state)
  step = functools.partial(
    train_step,
    task=task,
    optimizer=optimizer,
    num_microbatches=num_microbatches,
    all_reduce=lambda tree: tree,
  )
  after, _ = jax.eval_shape(step, before, batch)
  assert before == after
  table = before.params["embedding"]["embedding"]
  assert table.dtype == param_dtype
  moments = jax.tree.leaves(before.opt_state)
  assert "bfloat16" not in {leaf.dtype.name for leaf in moments}


def test_fsdp_spreads_parameters_and_moments_alike():
  _, _, make_state = make("transformer, stateless")
  strategy = JitStrategy(
    jax.devices(), dict(data=-1, fsdp=4), rules_of("transformer")
  )
  leaves = named_leaves(strategy.create(make_state))
  path = "blocks/feed_forward/up/kernel"
  moments = [name for name in leaves if name.endswith(path)]
  assert len(moments) == 3  # parameter, mean, variance
  for name in moments:
    assert leaves[name].sharding.spec == P(None, "fsdp", None)
    held = leaves[name].addressable_shards[0].data.size
    assert held * 4 == leaves[name].size


def test_rules_are_aligned_with_the_last_dimensions():
  mesh = jax.make_mesh((2, 4), ("data", "fsdp"), devices=jax.devices())
  rules = [("kernel$", ("fsdp", None)), ("kernel", ("data",))]
  spec = functools.partial(partition_spec, rules=rules, mesh=mesh)
  assert spec("a/kernel", (6, 8, 3)) == P(None, "fsdp", None)
  assert spec("a/kernel", (8,)) == P("data")  # too short for the first
  assert spec("a/bias", (8,)) == P()
  with pytest.raises(UserError, match="must divide dimension 6 of a/kernel"):
    spec("a/kernel", (6, 3))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_dropout_draws_anew_each_step_and_for_each_row(strategy):
  """The key is folded with step and device: no two rows, no two steps agree."""
  model = recurrent("lstm", V, embedding_width=64, dropout=0.5)
  task = LanguageModeling(model, np.ones(V, np.float32), "byte", False)
  seen = {}

  class Spy:
    def loss(self, params, model_state, batch, rngs, train):
      dropped = jax.random.bernoulli(rngs["dropout"], shape=(2, 64))
      outcome = task.loss(params, model_state, batch, rngs, train)
      jax.debug.callback(
        lambda step, rows: seen.setdefault(int(step), []).extend(
          row.tobytes() for row in np.array(rows)
        ),
        batch["number"][0],
        dropped,
      )
      return outcome

  optimizer = make("lstm, stateful")[1]

  def make_state():
    variables = task.init(
      jax.random.key(0), {"inputs": np.zeros((4, T), np.int32)}
    )
    return create_state(jax.random.key(0), variables, None, optimizer)

  devices = STRATEGIES[strategy](jax.devices()[:2], dict(data=-1))
  state = devices.create(make_state)
  step = devices.compile_step(
    functools.partial(
      train_step, task=Spy(), optimizer=optimizer, num_microbatches=1
    ),
    state,
  )
  for index, batch in enumerate(batches()):
    batch = {name: rows[:4] for name, rows in batch.items()}
    batch["number"] = np.full(4, index, np.int32)
    state, sums = step(state, devices.shard_batch(batch))
  jax.block_until_ready(sums)
  jax.effects_barrier()
  rows = [row for step_rows in seen.values() for row in step_rows]
  assert len(seen) == STEPS and len(set(rows)) == len(rows)


@pytest.mark.parametrize("family", sorted(set(MODELS) - {"ngram"}))
def test_default_rules_fit_every_family(family):
  config = finalize(defaults.get_config(model=family))
  model = MODELS[family](config, vocab_size=4096)
  tokens = np.zeros((1, config.data.seq_len), np.int32)
  masks = [tokens == 0] if model.kinds == ("text_encoder",) else []
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, *masks)
  mesh = jax.make_mesh((1, 4), ("data", "fsdp"), devices=jax.devices()[:4])
  rules = SHARDING_RULES[family]
  check_rules(shapes["params"], rules, mesh)
  shardings = tree_shardings(shapes, rules, mesh)
  assert any("fsdp" in leaf.spec for leaf in jax.tree.leaves(shardings))


def test_rules_and_parameters_must_fit_each_other():
  params = {"a": {"kernel": np.zeros((8, 8)), "bias": np.zeros(8)}}
  mesh = jax.make_mesh((2, 4), ("data", "fsdp"), devices=jax.devices())
  kernel, bias = ("kernel$", ("fsdp", None)), ("bias$", ())
  check_rules(params, [kernel, bias], mesh)
  with pytest.raises(UserError, match="rule 'scale.' matches no parameter"):
    check_rules(params, [kernel, bias, ("scale$", ())], mesh)
  with pytest.raises(UserError, match="no sharding rule matches a/bias"):
    check_rules(params, [kernel], mesh)
  # Nothing is sharded on a mesh without parameter axes, so nothing is checked.
  mesh = jax.make_mesh((8, 1), ("data", "fsdp"), devices=jax.devices())
  check_rules(params, [("scale$", ())], mesh)


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [
    (dict(data=-1, fsdp=1), dict(data=8, fsdp=1)),
    (dict(data=-1, fsdp=4), dict(data=2, fsdp=4)),
    (dict(data=2, fsdp=-1), dict(data=2, fsdp=4)),
    (dict(data=4, fsdp=2), dict(data=4, fsdp=2)),
  ],
)
def test_mesh_sizes_fill_all_devices(sizes, expected):
  assert mesh_sizes(sizes, 8) == expected


@pytest.mark.parametrize(
  "sizes",
  [
    dict(data=-1, fsdp=3),
    dict(data=-1, fsdp=-1),
    dict(data=2, fsdp=2),
    dict(data=0, fsdp=8),
    dict(data=16, fsdp=1),
  ],
)
def test_mesh_sizes_that_fit_no_devices_are_errors(sizes):
  with pytest.raises(UserError, match="parallel.mesh with data="):
    mesh_sizes(sizes, 8)
