# SPDX-License-Identifier: Apache-2.0
"""Output heads on any text encoder."""
