"""Settings of glibc's malloc: freed memory of CPU tensors is kept for the next step, not returned to the kernel.

By default malloc maps each block above 32 MiB anew and returns free memory at the heap's end. So each step pages its
activations in again: 45,000 page faults per step of a training of 5 M parameters, a sixth of its CPU time. Results have
the same bits. The price is that the process keeps its largest size until it returns memory itself.
"""

from __future__ import annotations

import ctypes

# Parameters of mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAX_TRIM_BYTES = 2**31 - 1  # the largest int
# Smallest block, in bytes, that is mapped by itself. glibc before 2.35 accepts half a heap at most.
MMAP_BYTES = (2**30, 2**25)


def keep_freed_memory() -> bool:
    """Set malloc to keep freed memory. Returns whether it is set; without glibc it is not."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have no mallopt, Windows has no such library
        return False
    is_set = any(mallopt(M_MMAP_THRESHOLD, size) for size in MMAP_BYTES)
    return bool(mallopt(M_TRIM_THRESHOLD, MAX_TRIM_BYTES)) and is_set


def give_back_freed_memory() -> None:
    """Return free memory to the kernel once, after a model that is no longer needed was freed."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # no glibc
        return
