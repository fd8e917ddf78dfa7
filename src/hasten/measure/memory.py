"""What this process holds in memory, now and at its highest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil

__all__ = ["peak_bytes", "resident_bytes"]


def resident_bytes() -> int:
    """Bytes of this process that lie in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int | None:
    """The most that was ever resident, or None where the system does not say.

    On Linux from the kernel's high-water mark of this address space: ``ru_maxrss`` would count the parent's size at
    the fork, gigabytes where the parent has TensorFlow open.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        if found:
            return int(found.group(1)) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "darwin":
        import resource  # noqa: PLC0415  (Unix alone has it)

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return None
