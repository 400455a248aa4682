# SPDX-License-Identifier: Apache-2.0
"""Training: the step, the driver and what hangs on it."""
