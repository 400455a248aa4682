# SPDX-License-Identifier: Apache-2.0
"""Generators that search: each is called as lmjax.generator.Generator is."""
