"""Memory that is no longer used goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Give free memory back to the system, where the C library keeps it for later, as that of Linux does.

    Arrays of some megabytes that threads have freed would else stay with the process, up to a gigabyte in all.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
