# SPDX-License-Identifier: Apache-2.0
"""Command-line code shared by the commands."""
