# SPDX-License-Identifier: Apache-2.0
"""Experiment configs: defaults, validation and compatibility on resume."""
