# SPDX-License-Identifier: Apache-2.0
"""From text to batches: sources, tokenizers, streams, orders, the loader."""
