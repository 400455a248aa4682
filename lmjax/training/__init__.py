# SPDX-License-Identifier: Apache-2.0
"""Training: the state, the step, the driver and what hangs on it."""
