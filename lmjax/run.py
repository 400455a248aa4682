# SPDX-License-Identifier: Apache-2.0
"""A trained run, opened from its folder alone."""

import functools
from pathlib import Path

import jax

from lmjax.config import finalize
from lmjax.data.tokenizers import Tokenizer
from lmjax.embedding import learned_vectors
from lmjax.errors import UsageError, UserError
from lmjax.experiment import Experiment
from lmjax.interop.word_vectors import WordVectors
from lmjax.parallel.jit import JitStrategy
from lmjax.run_folder import RunFolder
from lmjax.state import TrainState
from lmjax.text_filler import FILLERS, Filled
from lmjax.text_sampler import SAMPLERS, TextSampler
from lmjax.training.checkpoints import Checkpoints
from lmjax.training.evaluation import Evaluator


class Run:
  """What a run folder holds, ready to use.

  Attributes:
    experiment: the objects of its config.
    step: the step that the parameters are of.
    variables: the model's variables.

  Args:
    workdir: the run folder.
    checkpoint: "best" by validation loss, "latest", or a step.
    overrides: parts of the config to look at differently, by dotted key.

  Raises:
    UserError: if the folder holds no run, or no such checkpoint.
  """

  def __init__(
    self,
    workdir: str | Path,
    checkpoint: str | int = "best",
    overrides: dict | None = None,
  ):
    folder = RunFolder(workdir)
    config = folder.load_config()
    if "implementation" in config.model:  # any has the same parameters
      config.model.implementation = "auto"
    config.update_from_flattened_dict(overrides or {})
    self.experiment = Experiment(finalize(config), folder)
    if not folder.checkpoints.exists():
      raise UserError(f"{folder.path} holds no checkpoint yet; train longer.")
    checkpoints = Checkpoints(folder.checkpoints)
    try:
      self.step = _choose(checkpoints, checkpoint)
      shapes = jax.eval_shape(self.experiment.make_state)
      self.variables = checkpoints.restore_variables(shapes, self.step)
    finally:
      checkpoints.close()

  @property
  def tokenizer(self) -> Tokenizer:
    """Return the tokenizer of the run."""
    return self.experiment.tokenizer

  @functools.cached_property
  def vectors(self) -> WordVectors:
    """Return the names of tokens, and what the run knows of each as a vector.

    Raises:
      UserError: if its model has no vector a token.
    """
    return learned_vectors(
      self.variables["params"], self.experiment.config, self.tokenizer
    )

  @functools.cached_property
  def _sampler(self) -> TextSampler:
    task = self.experiment.config.task
    if task not in SAMPLERS:
      tool = "fill.py" if task in FILLERS else "embed.py"
      raise UsageError(
        f"a run of task={task} does not go on from a text; scripts/{tool} "
        "shows what it has learned."
      )
    return SAMPLERS[task](self.experiment.model, self.tokenizer)

  def generate(
    self, prompt: str = "\n", num_samples: int | None = None, **settings
  ) -> str | list[str]:
    """Continue a prompt; see TextSampler for the settings.

    Returns:
      A text, or a list of them if `num_samples` is given.
    """
    number = 1 if num_samples is None else num_samples
    texts = self._sampler(
      self.variables, prompt, num_samples=number, **settings
    )
    return texts[0] if num_samples is None else texts

  def fill(self, text: str, **settings) -> Filled:
    """Fill the blanks `___` of a text; see lmjax.text_filler for settings.

    Raises:
      UsageError: if the run's task fills no blanks.
    """
    task = self.experiment.config.task
    if task not in FILLERS:
      raise UsageError(
        f"a model that learned task={task} fills no blanks; train one with "
        f"task={' or '.join(FILLERS)}."
      )
    filler = FILLERS[task](self.experiment.model, self.tokenizer)
    return filler(self.variables, text, **settings)

  def evaluate(self, split: str = "valid") -> dict[str, float]:
    """Judge the parameters on a whole split, "train", "valid" or "test"."""
    self.experiment.check_corpus()
    task = self.experiment.task
    collections = dict(self.variables)
    state = TrainState(
      step=self.step,
      params=collections.pop("params"),
      opt_state=(),
      collections=collections,
      carry=None,
      key=jax.random.key(0),
    )
    strategy = JitStrategy(jax.devices()[:1], fsdp=1, rules=())
    batches = self.experiment.eval_batches(split)
    return Evaluator(task, strategy, batches)(state)


def _choose(checkpoints: Checkpoints, which: str | int) -> int:
  available = checkpoints.steps()
  if not available:
    raise UserError(
      f"{checkpoints.folder} holds no checkpoint yet; train longer."
    )
  if which == "best":
    return checkpoints.best()
  if which == "latest":
    return checkpoints.latest()
  if str(which) not in map(str, available):
    raise UsageError(
      f"checkpoint={which} is not there; choose best, latest or one of "
      f"{', '.join(map(str, available))}."
    )
  return int(which)
