# SPDX-License-Identifier: Apache-2.0
"""Memory of this process."""

import os
import resource
from pathlib import Path


def resident_bytes() -> int:
  """Return the memory that this process holds now."""
  pages = int(Path("/proc/self/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
  """Return the peak memory of this process."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
