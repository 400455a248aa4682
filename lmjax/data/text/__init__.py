# SPDX-License-Identifier: Apache-2.0
"""Corpora of running text: token streams, batching and objectives."""
