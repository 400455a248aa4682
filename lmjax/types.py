# SPDX-License-Identifier: Apache-2.0
"""Types that every package uses, and the legend of dimension letters.

A suffix of capitals on a name gives the axes of the array in order, so that
`hidden_BTD` has shape [batch, time, width]:

    A  assignments of tokens to experts
    B  batch
    C  capacity of a cache: positions that it stores
    D  model width
    E  width of the token embedding
    F  width of a feed-forward layer, or output features of a dense layer
    G  key and value heads (G divides H)
    H  query heads
    I  input features, or inner width, of a layer where it differs from D
    J  width of the values of one head where it differs from K
    K  width of one head
    L  layers
    N  items of a list: tokens of a flattened batch, hypotheses, candidates,
       generated tokens
    O  options: the best candidates of a top-k operation
    S  positions attended to: keys, or tokens of the source
    T  time (target positions)
    U  states of an automaton
    V  vocabulary
    X  experts
    Y  classes: labels, tags, or classes of tokens
    Z  gates of a recurrent layer, concatenated: 4 × width in an LSTM

M, P, Q, R and W have no general meaning: a module that uses one defines it in
its docstring in the same form. A digit is an axis of that size, so `mask_B1S`
broadcasts over time. Arrays without a suffix are scalars, pytrees, or of a
shape that the docstring gives.
"""

from collections.abc import Mapping
from typing import Any

import jax

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]  # one array a field, batch axis first
