"""Makes mangled C++ names readable, where this machine has the library for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

# Longer names are machine-made templates that nobody reads, and a hostile one could exhaust the demangler's stack.
_LONGEST = 4096


def demangle(symbol: str) -> str:
    """Return the C++ declaration behind a mangled name, or the name unchanged."""
    function = _demangler()
    if function is None or not symbol.startswith("_Z") or len(symbol) > _LONGEST:
        return symbol
    return function(symbol) or symbol


@cache
def _demangler() -> Callable[[str], str] | None:
    """Return a call of ``__cxa_demangle`` (Itanium C++ ABI, 3.4), or None where there is no libstdc++."""
    try:
        demangler = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
        free = ctypes.CDLL(None).free
    except (OSError, AttributeError):
        return None
    demangler.restype = ctypes.c_void_p
    demangler.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    free.argtypes = (ctypes.c_void_p,)
    free.restype = None

    def call(symbol: str) -> str:
        text = demangler(symbol.encode(), None, None, None)
        if not text:
            return ""
        try:
            return ctypes.string_at(text).decode(errors="replace")
        finally:
            free(text)

    return call
