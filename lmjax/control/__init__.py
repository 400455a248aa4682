# SPDX-License-Identifier: Apache-2.0
"""What a text must look like, and who has a say in it, as users ask for it."""
