# SPDX-License-Identifier: Apache-2.0
"""Constraints on generated text: automata over bytes and tokens."""
