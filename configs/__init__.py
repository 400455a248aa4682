# SPDX-License-Identifier: Apache-2.0
"""Experiments: one file each, every one a difference from base.py."""
