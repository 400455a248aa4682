# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.errors import UsageError
from lmjax.generation.sampling_params import SamplingParams
from lmjax.run import Run
from lmjax.training.loop import train


@pytest.fixture
def trained(tiny_config, text_folder, tmp_path):
  """Train a model on a small text, and return the run directory."""

  def make(model, **changes):
    text = {
      "data.source": "text",
      "data.path": str(text_folder),
      "data.split_by": "name",
      "data.seq_len": 7,
      "data.batch_size": 3,
    }
    assert train(tiny_config(model, **text, **changes), tmp_path) == 0
    return tmp_path

  return make


def test_scores_are_in_the_order_of_the_text(trained):
  """A unigram knows no context, so each token has a score of its own."""
  folder = trained("ngram", **{"model.order": 1})
  for order in ("stateless", "stateful"):
    run = Run(folder, overrides={"data.order": order})
    scores = run.log_probs("test")
    targets = run.experiment.corpus.stream("test").tokens[1:]
    scores_V = np.full(run.tokenizer.vocab_size, np.nan)
    scores_V[targets] = scores
    assert len(set(scores.tolist())) > 9
    np.testing.assert_array_equal(scores, scores_V[targets])


def test_scores_are_what_evaluation_sums(trained):
  """Of a model that counts from the start of each window."""
  folder = trained("transformer", **{"model.positions": "learned"})
  run = Run(folder)
  loss = run.evaluate("test")["loss"]
  scores = run.log_probs("test")
  np.testing.assert_allclose(-scores.mean(), loss, rtol=1e-5)
  text = run.tokenizer.decode(run.experiment.corpus.stream("test").tokens[:40])
  (score,) = run.score([text])
  assert score.num_sequences == 6
  np.testing.assert_allclose(score.log_probs[1:], scores[:39], rtol=1e-5)
  with pytest.raises(UsageError, match="is a run of task=prefix_lm"):
    Run(folder, overrides={"task": "prefix_lm"}).log_probs("test")


def test_a_run_that_forgets_at_documents_begins_its_texts_behind_eos(
  tiny_config, tmp_path
):
  """As in training: so a text has its first token, and a prompt its place."""
  lines = tmp_path / "lines.tsv"
  lines.write_text("abcdef\n" * 400)
  config = tiny_config(
    "lstm",
    **{
      "data.source": "tsv",
      "data.field": "0",
      "data.path": str(lines),
      "data.order": "stateful",
      "data.reset_at_documents": True,
      "optim.learning_rate": 0.05,
      "train.num_steps": 60,
      "train.eval_every": 0,
    },
  )
  assert train(config, tmp_path / "run") == 0
  run = Run(tmp_path / "run")
  params = SamplingParams(num_tokens=9, temperature=0.0)
  assert run.generate(["", "abc"], params).texts == ["abcdef", "def"]
