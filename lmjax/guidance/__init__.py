# SPDX-License-Identifier: Apache-2.0
"""Auxiliary models that steer generation."""
