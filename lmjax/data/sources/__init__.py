# SPDX-License-Identifier: Apache-2.0
"""Sources of text: files, the Python standard library and TFDS."""
