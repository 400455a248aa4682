# SPDX-License-Identifier: Apache-2.0
"""An HTTP server for generation with dynamic batching."""
