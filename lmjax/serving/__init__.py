# SPDX-License-Identifier: Apache-2.0
"""A model behind HTTP: many clients, few batches."""
