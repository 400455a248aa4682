# SPDX-License-Identifier: Apache-2.0
"""Numerics on plain arrays: no modules, no parameters' names, no Flax."""
