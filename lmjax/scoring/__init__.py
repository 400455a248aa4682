# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of texts under a trained model."""
