# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens from any model that keeps the contract."""
