"""Gives memory back to the system that Python and the C library have freed and kept for later."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def trimmed() -> Iterator[None]:
    """Give back what is free when the block has ended.

    glibc keeps freed blocks of up to 32 MB for each thread that had some. With a thread for each of 32 slots that is
    most of a gigabyte, which compilers could use. Another C library has no malloc_trim, and nothing happens.
    """
    try:
        yield
    finally:
        if _trim is not None:
            _trim(0)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
