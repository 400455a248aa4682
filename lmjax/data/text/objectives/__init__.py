# SPDX-License-Identifier: Apache-2.0
"""Objectives: what rewrites token sequences before they are learned from."""
