# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.errors import UsageError
from lmjax.run import Run
from lmjax.training.loop import train


def test_scores_are_in_the_order_of_the_text(
  tiny_config, text_folder, tmp_path
):
  """A unigram knows no context, so each token has a score of its own."""
  text = {
    "data.source": "text",
    "data.path": str(text_folder),
    "data.split_by": "name",
    "data.window": 7,
    "data.batch_size": 3,
  }
  config = tiny_config("ngram", **text, **{"model.order": 1})
  assert train(config, tmp_path) == 0
  for order in ("stateless", "stateful"):
    run = Run(tmp_path, overrides={"data.order": order})
    scores = run.log_probs("test")
    targets = run.experiment.stream("test").tokens[1:]
    scores_V = np.full(run.tokenizer.vocab_size, np.nan)
    scores_V[targets] = scores
    assert len(set(scores.tolist())) > 9
    np.testing.assert_array_equal(scores, scores_V[targets])


def test_only_what_predicts_the_next_token_scores_a_text(
  tiny_config, text_folder, tmp_path
):
  changes = {"task": "prefix_lm", "data.source": "text"}
  changes |= {"data.path": str(text_folder), "data.split_by": "name"}
  assert train(tiny_config("transformer", **changes), tmp_path) == 0
  with pytest.raises(UsageError, match="learned task=prefix_lm"):
    Run(tmp_path).log_probs("test")
