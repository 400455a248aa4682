# SPDX-License-Identifier: Apache-2.0
"""Text generation: requests, decoding strategies, samplers and infilling."""
