# SPDX-License-Identifier: Apache-2.0
"""Whole networks by name; to add one, write its file and a line here.

Every autoregressive model keeps one contract:

    carry = model.initial_carry(batch_size, capacity)
    hidden_BTD, carry = model.apply(variables, tokens_BT, carry, resets_BT)
    logits_BTV = model.apply(variables, hidden_BTD, method="logits")
    table_VD, bias_V = model.apply(variables, method="unembedding")

Logits are `hidden · table + bias`, where the bias may be None, so that a loss
or a decoder can lay that product out as it needs. Every leaf of a carry has its
batch axis first. `carry=None` stands for an empty one that is not needed
afterwards. `model.context` is how many tokens a carry can hold, None if there
is no limit. `model.choices(with_resets)` names what each "auto" stands for.
`model.for_decoding(variables, batch_size)` returns a model and variables that
compute the same, laid out for one token at a time.
"""

from lmjax.models import lstm, transformer

# Name → builder: (config, vocab_size) → module, or a UsageError.
MODELS = {"lstm": lstm.build, "transformer": transformer.build}
