# SPDX-License-Identifier: Apache-2.0
"""Types that every room shares, and the legend of the shape letters.

A suffix of capitals on a name gives the array's axes in order, so that
`hidden_BTD` has shape [batch, time, width]:

    B  batch                      T  time (target positions)
    S  positions attended to      D  model width
    C  capacity of a cache        E  width of the token embedding
    H  query heads                G  key and value heads (G divides H)
    K  width of one head          F  width of the feed-forward layer
    L  layers                     V  vocabulary

Arrays without a suffix are scalars or pytrees.
"""

from collections.abc import Mapping
from typing import Any

import jax

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]  # one array a field, batch axis first
