# SPDX-License-Identifier: Apache-2.0
"""Comparing what runs have reached, and looking at what was learned."""
