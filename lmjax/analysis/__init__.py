# SPDX-License-Identifier: Apache-2.0
"""Comparing what runs have reached."""
