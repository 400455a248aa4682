# SPDX-License-Identifier: Apache-2.0
"""A config and its run directory as objects."""
