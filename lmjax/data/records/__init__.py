# SPDX-License-Identifier: Apache-2.0
"""Corpora of records: tables, schemas, encoding and bucketing."""
