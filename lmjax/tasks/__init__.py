# SPDX-License-Identifier: Apache-2.0
"""Tasks: a batch in, sums of losses and metrics out; see task.py."""
