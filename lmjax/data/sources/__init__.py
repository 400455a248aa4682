# SPDX-License-Identifier: Apache-2.0
"""Where text comes from: files, standard library sources and TFDS."""
