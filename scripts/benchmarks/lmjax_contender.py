# SPDX-License-Identifier: Apache-2.0
"""lmjax as its users run it: configs, the step of train.py, the sampler."""

import dataclasses
import functools
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from benchmarks import corpora, parameters
from benchmarks.memory import peak_resident_bytes
from benchmarks.workload import (
  LEARNING_RATE,
  NUM_BATCHES,
  NUM_COMPARED,
  NUM_TOKENS,
  PROMPT_LENGTH,
  Workload,
)
from lmjax import platform
from lmjax.config import defaults
from lmjax.config.compatibility import from_json
from lmjax.config.finalize import finalize
from lmjax.data.loader import load
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.run_dir import RunDir, describe_environment
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.training.loop import compile_train_step, make_strategy
from lmjax.tree import map_named, named_leaves
from lmjax.types import PyTree

ENDLESS = 10**9  # batches


def make(work: dict, folder: Path) -> "Load | Train | Compile | Generate":
  """Prepare the machine as the command lines do, then the work."""
  kind = KINDS[work["kind"]]
  if "config" in work:
    config = finalize(from_json(work["config"]))
  else:
    config = make_config(Workload(**work), folder)
  trains = issubclass(kind, Training)
  platform.start(platform.virtual_devices(config) if trains else 1)
  return kind(Experiment(config, run(folder)))


def run(folder: Path) -> RunDir:
  """Name the folder where corpora are encoded; it never holds a run."""
  return RunDir(folder / "run")


def peak_bytes() -> int:
  """Return the peak memory of the device, or of the process on a CPU."""
  stats = jax.devices()[0].memory_stats()
  return stats["peak_bytes_in_use"] if stats else peak_resident_bytes()


def tokenizer_of(work: Workload) -> str:
  """Choose characters for a small vocabulary, words for a large one."""
  return "character" if work.vocab_size < 256 else "word"


def make_config(work: Workload, folder: Path) -> ConfigDict:
  """Write the experiment that does the work, on a corpus made for it."""
  tokenizer = tokenizer_of(work)
  config = defaults.get_config(model=work.model)
  changes = {
    "model.width": work.width,
    "model.num_layers": work.num_layers,
    "model.dtype": work.dtype,
    "data.source": "text",
    "data.path": str(corpora.write(folder, tokenizer, work.vocab_size)),
    "data.split_by": "name",
    "data.tokenizer": tokenizer,
    "data.seq_len": work.seq_len,
    "data.batch_size": work.batch_size,
    "optim.weight_decay": 0.0,
    "optim.learning_rate": LEARNING_RATE,
    "optim.schedule": "constant",
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.b2": 0.999,
    "preview.temperature": 0.0 if work.top_k == 1 else 1.0,
    "preview.top_k": work.top_k,
  }
  if work.model == "lstm":
    changes["model.embedding_width"] = work.embedding_width
  else:
    changes |= {
      "model.num_heads": work.num_heads,
      "model.norm": "layer" if work.use_bias else "layer_no_bias",
      "model.use_bias": work.use_bias,
      "model.positions": "learned",
      "model.max_context": work.max_context,
    }
  if work.kind == "compile":
    changes["model.scan_layers"] = "scan"
  config.update_from_flattened_dict(changes)
  return finalize(config)


def environment() -> dict:
  """Name versions, devices, processor and commit."""
  found = describe_environment()
  del found["command"]
  lines = Path("/proc/cpuinfo").read_text().split("\n")
  names = [n.partition(": ")[2] for n in lines if n.startswith("model name")]
  cores = len(os.sched_getaffinity(0))
  return {**found, "processor": (names or [""])[0], "cores": cores}


class Training:
  """An experiment's compiled step and the state that it moves on."""

  def __init__(self, experiment: Experiment):
    self.experiment = experiment
    self.strategy = make_strategy(experiment.config)
    self.state = self.strategy.create(experiment.make_state)
    self.step = compile_train_step(experiment, self.strategy, self.state)
    self.batches = experiment.corpus.train_batches()
    self.facts = dict(environment=environment())

  def tokens(self) -> int:
    """Count the tokens of a step."""
    data = self.experiment.config.data
    return data.batch_size * data.seq_len

  def rates(self, tokens: int) -> dict[str, float]:
    """Tell what tokens cost, for rates to be computed of seconds."""
    data, model = self.experiment.config.data, self.experiment.model
    kind = jax.devices()[0].device_kind
    return dict(
      tokens=tokens,
      flops=3 * tokens * model.flops_per_token(data.seq_len),
      peak_flops=platform.peak_flops(kind, str(model.dtype)),
    )

  def take_step(self, batch: PyTree) -> PyTree:
    """Make one update; return its sums without waiting for them."""
    self.state, sums = self.step(self.state, batch)
    return sums


class Train(Training):
  """The loop of train.py: loader, device, step; sums read one step late.

  Peers find the first weights and batches in the folder.
  """

  def __init__(self, experiment: Experiment):
    super().__init__(experiment)
    folder = experiment.folder.path.parent
    parameters.save(folder, named_leaves(jax.device_get(self.state.params)))
    for index in range(NUM_BATCHES):
      batch = self.batches[index]
      parameters.save_batch(folder, index, batch["inputs"], batch["targets"])
    threads = experiment.config.data.num_threads
    self._loader = load(self.batches, 0, ENDLESS, threads)
    losses = []
    for _ in range(NUM_COMPARED):
      sums = jax.device_get(self._next())
      losses.append(float(sums.loss / sums.weight))
    self.facts.update(losses=losses, **self.rates(self.tokens()))

  def _next(self) -> PyTree:
    return self.take_step(self.strategy.shard_batch(next(self._loader)))

  def run(self, count: int) -> float:
    """Time steps; return seconds of one."""
    pending = None
    began = time.perf_counter()
    for _ in range(count):
      sums = self._next()
      jax.device_get(pending)
      pending = sums
    jax.block_until_ready((pending, self.state))
    return (time.perf_counter() - began) / count


class Step(Training):
  """The step alone, on a batch that is on the device already."""

  def __init__(self, experiment: Experiment):
    super().__init__(experiment)
    self._placed = self.strategy.shard_batch(self.batches[0])
    self.run(1)  # compiles

  def run(self, count: int) -> float:
    """Time steps; return seconds of one."""
    began = time.perf_counter()
    for _ in range(count):
      self.take_step(self._placed)
    jax.block_until_ready(self.state)
    return (time.perf_counter() - began) / count


class Budget(Step):
  """The step, a token, with what it is made of and the memory it takes.

  "step_bytes" are the arguments, results and temporary arrays of the compiled
  program, what it writes over counted once.
  """

  def __init__(self, experiment: Experiment):
    super().__init__(experiment)
    program = self.step.lower(self.state, self._placed).compile()
    memory = program.memory_analysis()
    self.facts.update(
      parameters=sum(leaf.size for leaf in jax.tree.leaves(self.state.params)),
      step_bytes=memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes,
      **self.rates(1),
    )

  def run(self, count: int) -> float:
    """Time the steps that so many tokens take; return seconds of one."""
    return super().run(-(-count // self.tokens())) / self.tokens()


class Load:
  """The loader alone."""

  def __init__(self, experiment: Experiment):
    threads = experiment.config.data.num_threads
    self._loader = load(experiment.corpus.train_batches(), 0, ENDLESS, threads)
    self.facts = dict(environment=environment())

  def run(self, count: int) -> float:
    """Time batches; return seconds of one."""
    began = time.perf_counter()
    for _ in range(count):
      next(self._loader)
    return (time.perf_counter() - began) / count


class Compile(Training):
  """The first call of the step, less the time that the second one takes."""

  def run(self, count: int) -> float:
    """Time the compilation; a process can do so once."""
    del count
    placed = self.strategy.shard_batch(self.batches[0])
    seconds = []
    for _ in range(2):
      began = time.perf_counter()
      self.take_step(placed)
      jax.block_until_ready(self.state)
      seconds.append(time.perf_counter() - began)
    return seconds[0] - seconds[1]


class Generate:
  """The sampler of sample.py, from prompt to text.

  Peers find weights, prompt and first tokens of greedy search in the folder;
  losses are of those.
  """

  def __init__(self, experiment: Experiment):
    data, tokenizer = experiment.config.data, experiment.tokenizer
    self._batch_size = data.batch_size
    self._prompt = corpora.prompt(
      data.tokenizer, tokenizer.vocab_size, PROMPT_LENGTH
    )
    variables = jax.jit(experiment.make_variables)(jax.random.key(0))
    self._variables = map_named(
      functools.partial(_without_token, tokenizer.eos_id), variables
    )
    folder = experiment.folder.path.parent
    weights = named_leaves(jax.device_get(self._variables["params"]))
    parameters.save(folder, weights)
    self._sampler = TextSampler(experiment.model, tokenizer, caches_layout=True)
    preview = experiment.config.preview
    self._params = SamplingParams(
      num_tokens=NUM_TOKENS,
      num_samples=self._batch_size,
      temperature=preview.temperature,
      top_k=preview.top_k,
    )
    greedy = SamplingParams(num_tokens=NUM_COMPARED, temperature=0.0)
    requests = self._sampler.requests([self._prompt], greedy)
    (first,) = self._sampler.generate(
      self._variables, self._prompt, greedy
    ).completions
    self.run(1)  # compiles
    parameters.save_text(folder, requests[0].tokens, first.tokens)
    losses = [-log_prob for log_prob in first.log_probs]
    self.facts = dict(environment=environment(), losses=losses)

  def run(self, count: int) -> float:
    """Time calls; return seconds of one."""
    began = time.perf_counter()
    for seed in range(count):
      params = dataclasses.replace(self._params, seed=seed)
      self._sampler.generate(
        self._variables,
        self._prompt,
        params,
        batch_size=self._batch_size,
      )
    return (time.perf_counter() - began) / count


def _without_token(token: int, name: str, leaf: jax.Array) -> jax.Array:
  """Let no text end early, where the output layer has a bias for that."""
  if name != "params/output/bias":
    return leaf
  return leaf.at[token].set(jnp.finfo(leaf.dtype).min / 2)


KINDS = {
  "train": Train,
  "step": Step,
  "budget": Budget,
  "load": Load,
  "compile": Compile,
  "generate": Generate,
}
