# SPDX-License-Identifier: Apache-2.0
"""Schemas: what turns records into examples, one file per task."""
