# SPDX-License-Identifier: Apache-2.0
"""Flax modules that models are put together from."""
