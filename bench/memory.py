"""The peak memory of the program that measures itself."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mib() -> int:
    """The most memory this program had resident so far, in MiB.

    On Linux from ``VmHWM`` of proc_pid_status(5): that belongs to the address space of the program, while ``ru_maxrss`` of
    getrusage(2) is handed down through fork and exec, so that a child of a large process begins with its parent's peak.
    Elsewhere from ``ru_maxrss``, which macOS counts in bytes.
    """
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            if name == "VmHWM":
                return int(rest.split()[0]) // 1024
    scale = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // scale
