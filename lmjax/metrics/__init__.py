# SPDX-License-Identifier: Apache-2.0
"""Metrics: sums over batches, and comparisons of texts and rankings."""
