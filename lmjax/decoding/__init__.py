# SPDX-License-Identifier: Apache-2.0
"""Token-level decoding algorithms for any model with the contract."""
