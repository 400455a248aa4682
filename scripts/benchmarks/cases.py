# SPDX-License-Identifier: Apache-2.0
"""What is measured, against what, and the ratios that are asked for."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from benchmarks.workload import Workload

GIB = str(1 << 30)
UNLIMITED = str(1 << 40)
# What lmjax.platform asks of glibc, as variables that any process obeys.
SAME_ALLOCATOR = {
  "MALLOC_MMAP_THRESHOLD_": UNLIMITED,
  "MALLOC_TRIM_THRESHOLD_": UNLIMITED,
  "MALLOC_TOP_PAD_": GIB,
  "MALLOC_ARENA_MAX": "1",
}
SUFFIX = ", same allocator"
LIBRARIES = ("torch", "flax", "transformers")


@dataclasses.dataclass(frozen=True)
class Contender:
  """One process, or one a measurement, that does some work.

  Attributes:
    name: what tables call it.
    library: whose it is: "lmjax" or one of LIBRARIES.
    module: the module of this package that does the work.
    work: what its `make` is given, as JSON holds it.
    environment: variables of its process.
    fresh: whether each measurement starts a new process.
  """

  name: str
  library: str
  module: str
  work: Mapping
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  fresh: bool = False

  def with_allocator(self) -> "Contender":
    """Return the contender with the allocator settings of lmjax."""
    return dataclasses.replace(
      self,
      name=same_allocator(self.name),
      environment={**self.environment, **SAME_ALLOCATOR},
    )


@dataclasses.dataclass(frozen=True)
class Row:
  """One comparison.

  Without a required ratio it is informative only.

  Attributes:
    against: names of contenders; the fastest of them counts.
    at_least: minimum of their time divided by ours.
    at_most: maximum of our time divided by theirs; for growth, of the exponent.
  """

  against: tuple[str, ...]
  at_least: float | None = None
  at_most: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
  """A workload, its contenders, and the comparisons.

  Attributes:
    word: the benchmark's name on the command line.
    name: matched with `--case`; the name of a row of the report.
    work: description for readers.
    contenders: lmjax first.
    rows: the comparisons.
    unit: unit of the measurements.
    dtype: dtype of the matmuls, or "" if it does not matter.
    sizes: for growth, the size of each contender.
    warm_up: whether contenders are run before the measurement.
    max_repeats: maximum number of useful repeats.
    needs_gpu: whether it takes too long without a GPU.
  """

  word: str
  name: str
  work: str
  contenders: tuple[Contender, ...]
  rows: tuple[Row, ...]
  unit: str = "seconds"
  dtype: str = ""
  sizes: tuple[int, ...] = ()
  warm_up: bool = True
  max_repeats: int = 1000
  needs_gpu: bool = False


def same_allocator(name: str) -> str:
  """Name the twin of a contender that has our allocator settings."""
  return name + SUFFIX


# Name → library, module, options of the module's `make`.
PEERS = {
  "torch eager": ("torch", "peer_torch", dict(compiled=False)),
  "torch compile": ("torch", "peer_torch", dict(compiled=True)),
  "torch step loop": ("torch", "peer_torch", dict(compiled=False)),
  "flax nn.RNN": ("flax", "peer_flax", {}),
  "transformers generate": ("transformers", "peer_transformers", {}),
}
EAGER, COMPILE = "torch eager", "torch compile"


def _lmjax(work: Workload) -> Contender:
  return Contender(
    "lmjax", "lmjax", "lmjax_contender", dataclasses.asdict(work)
  )


def _case(
  word: str,
  name: str,
  work: Workload,
  asked: Mapping[str | tuple[str, ...], float],
  **options,
) -> Case:
  """Make a case against peers: names, or several for the best → ratio."""
  rows = tuple(
    Row((names,) if isinstance(names, str) else names, at_least=ratio)
    for names, ratio in asked.items()
  )
  contenders = [_lmjax(work)]
  for peer in dict.fromkeys(name for row in rows for name in row.against):
    library, module, choices = PEERS[peer]
    peer_work = {**dataclasses.asdict(work), **choices}
    contenders.append(Contender(peer, library, module, peer_work))
  return Case(
    word,
    f"{name} {work.dtype}",
    str(work),
    tuple(contenders),
    rows,
    dtype=work.dtype,
    **options,
  )


def _both(
  word: str, name: str, work: Workload, float32, bfloat16
) -> list[Case]:
  """Make the cases of both dtypes."""
  bf16 = dataclasses.replace(work, dtype="bfloat16")
  return [_case(word, name, work, float32), _case(word, name, bf16, bfloat16)]


def _lstm(kind: str, vocab_size: int, embedding: int, width: int, **sizes):
  return Workload(
    kind,
    "lstm",
    vocab_size=vocab_size,
    embedding_width=embedding,
    width=width,
    num_layers=2,
    **sizes,
  )


def _gpt(kind: str, num_layers: int, num_heads: int, width: int, **sizes):
  return Workload(
    kind,
    "transformer",
    num_layers=num_layers,
    num_heads=num_heads,
    width=width,
    **sizes,
  )


def _training() -> list[Case]:
  best = (EAGER, COMPILE)
  small = _lstm("train", 10_000, 100, 256, batch_size=32, seq_len=64)
  medium = _lstm("train", 10_000, 650, 650, batch_size=20, seq_len=35)
  large = _lstm("train", 10_000, 1500, 1500, batch_size=20, seq_len=35)
  character = _lstm("train", 65, 512, 512, batch_size=64, seq_len=128)
  nano = _gpt("train", 4, 4, 128, vocab_size=65, batch_size=12, seq_len=64)
  ten_million = _gpt(
    "train", 6, 6, 384, vocab_size=65, batch_size=16, seq_len=256
  )
  gpt2 = _gpt(
    "train",
    12,
    12,
    768,
    vocab_size=50_257,
    batch_size=16,
    seq_len=1024,
    dtype="bfloat16",
  )
  asked = {EAGER: 1.4, COMPILE: 1.25, "flax nn.RNN": 1.7}
  return [
    *_both("lstm", "lstm 2x256", small, asked, {EAGER: 1.25}),
    *_both("lstm", "lstm 2x650", medium, {EAGER: 1.15}, {EAGER: 0.95}),
    *_both("lstm", "lstm char 2x512", character, {EAGER: 1.15}, {EAGER: 1.1}),
    _case("lstm", "lstm 2x1500", large, {EAGER: 1.0}, needs_gpu=True),
    *_both("transformer", "gpt 4x128", nano, {best: 1.25}, {best: 1.6}),
    *_both("transformer", "gpt 6x384", ten_million, {best: 1.1}, {best: 0.9}),
    _case("transformer", "gpt 12x768", gpt2, {best: 1.0}, needs_gpu=True),
  ]


def _decoding() -> list[Case]:
  cases = []
  for batch_size, hugging_face, step_loop in ((1, 3.5, 12), (16, 2, 3)):
    for top_k in (1, 40):
      gpt = _gpt(
        "generate",
        6,
        6,
        384,
        vocab_size=50_257,
        batch_size=batch_size,
        seq_len=64,
        max_context=512,
        use_bias=True,
        top_k=top_k,
      )
      name = f"generate gpt batch {batch_size} {gpt.choice}"
      asked = {"transformers generate": hugging_face}
      cases.append(_case("decode", name, gpt, asked))
    lstm = _lstm("generate", 65, 512, 512, batch_size=batch_size, seq_len=64)
    asked = {"torch step loop": step_loop}
    cases.append(
      _case("decode", f"generate lstm batch {batch_size}", lstm, asked)
    )
  return cases


def _loader(config: str) -> Case:
  contenders = tuple(
    Contender(name, "lmjax", "lmjax_contender", dict(kind=kind, config=config))
    for name, kind in (("loader", "load"), ("train step", "step"))
  )
  return Case(
    "data",
    "data",
    "one batch of the loader, and the compiled step of the same config",
    contenders,
    (Row(("train step",), at_least=20),),
  )


def _startup() -> Case:
  train = Contender("lmjax", "lmjax", "startup", dict(what="train"))
  torch = Contender("torch", "torch", "startup", dict(what="first_step"))
  return Case(
    "startup",
    "startup",
    "from the start of train.py to the end of step 1, GPT 4×128, warm cache",
    (train, torch),
    (Row(("torch",), at_most=1.5),),
  )


def _compile() -> Case:
  def contender(num_layers: int) -> Contender:
    gpt = _gpt(
      "compile", num_layers, 4, 128, vocab_size=65, batch_size=12, seq_len=64
    )
    return Contender(
      f"{num_layers} layers",
      "lmjax",
      "lmjax_contender",
      dataclasses.asdict(gpt),
      {"JAX_ENABLE_COMPILATION_CACHE": "0"},
      fresh=True,
    )

  return Case(
    "compile",
    "compile",
    "compile the train step of a scanned GPT of width 128, 24 layers",
    (contender(24), contender(6)),
    (Row(("6 layers",), at_most=1.3),),
    warm_up=False,
  )


def _memory() -> list[Case]:
  sizes = dict(vocab_size=50_257, seq_len=1024, batch_size=8, width=768)
  cases = []
  for measure, repeats in (("compiled", 1), ("resident", 3)):
    contenders = tuple(
      Contender(
        name,
        "lmjax",
        "loss_memory",
        dict(form=name, measure=measure, **sizes),
        fresh=True,
      )
      for name in ("linear_cross_entropy", "cross_entropy")
    )
    cases.append(
      Case(
        "memory",
        f"memory {measure}",
        "memory of the loss and its gradients, V 50,257, T 1,024, B 8, D 768, "
        + {"compiled": "temporary arrays", "resident": "process"}[measure],
        contenders,
        (Row(("cross_entropy",), at_most=1 / 8),),
        unit="bytes",
        warm_up=False,
        max_repeats=repeats,
      )
    )
  return cases


def _growth() -> list[Case]:
  def case(name: str, sizes: Sequence[int], fixed: Mapping[str, int]) -> Case:
    letter = {"seq_len": "T", "batch_size": "B"}
    contenders = tuple(
      dataclasses.replace(
        _lmjax(_lstm("train", 10_000, 100, 256, **{name: size}, **fixed)),
        name=f"{letter[name]} {size}",
      )
      for size in sizes
    )
    kept = ", ".join(f"{letter[key]} {value}" for key, value in fixed.items())
    return Case(
      "growth",
      f"growth with {letter[name]}",
      f"growth of the LSTM 2×256 train step with {letter[name]} from "
      f"{sizes[0]} to {sizes[-1]:,}, {kept}: exponent",
      contenders,
      (Row(("linear",), at_most=1.05),),
      sizes=tuple(sizes),
    )

  def powers(first: int, last: int) -> list[int]:
    return [
      2**n for n in range(int(math.log2(first)), int(math.log2(last)) + 1)
    ]

  return [
    case("seq_len", powers(32, 1024), {"batch_size": 8}),
    case("batch_size", powers(4, 128), {"seq_len": 64}),
  ]


def _families(configs: Mapping[str, str]) -> Case:
  """Make the case of whole models beside each other, not of their layers."""
  contenders = tuple(
    Contender(
      name, "lmjax", "lmjax_contender", dict(kind="budget", config=config)
    )
    for name, config in configs.items()
  )
  first, *others = contenders
  return Case(
    "families",
    "families",
    f"train step of configs/{first.name}.py, a token",
    contenders,
    tuple(Row((contender.name,)) for contender in others),
  )


def all_cases(config: str, families: Mapping[str, str]) -> list[Case]:
  """List every case.

  Args:
    config: what `data` measures, a finalized config as JSON.
    families: name → config that `families` compares, the first with all.
  """
  return [
    *_training(),
    *_decoding(),
    _loader(config),
    _startup(),
    *_memory(),
    _compile(),
    *_growth(),
    _families(families),
  ]
