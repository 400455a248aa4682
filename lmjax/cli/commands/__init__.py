# SPDX-License-Identifier: Apache-2.0
"""Commands: each module defines its flags and a function `main`."""
