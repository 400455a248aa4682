# SPDX-License-Identifier: Apache-2.0
"""Predictions for records: batching, rendering as JSON, and retrieval."""
