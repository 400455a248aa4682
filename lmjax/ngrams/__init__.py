# SPDX-License-Identifier: Apache-2.0
"""Count-based language models: counting, smoothing, back-off, ARPA files."""
