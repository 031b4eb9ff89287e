"""What every Linux machine with an NVIDIA driver provides, so that no wheel has to."""

from __future__ import annotations

import re

from attnforge.elf import Reference
from attnforge.knowledge.glibc import glibc_symbols

# The C and C++ libraries, by soname. PEP 513 and PEP 599 name them as what manylinux wheels may rely on.
SYSTEM_LIBRARIES = frozenset(
    {
        "ld-linux-aarch64.so.1",
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "libresolv.so.2",
        "librt.so.1",
        "libstdc++.so.6",
        "libutil.so.1",
    }
)

# The driver's libraries: they come with the driver of the machine and with nothing else.
DRIVER_LIBRARIES = frozenset({"libcuda.so.1", "libnvidia-ml.so.1"})

_SYSTEM_VERSION = re.compile(r"(?:GLIBC|GLIBCXX|CXXABI|GCC|CXXABI_TM)_\w")
_DRIVER_SYMBOL = re.compile(r"(?:cu[A-Z]|nvml[A-Z])\w*")
_PYTHON_SYMBOL = re.compile(r"_?Py\w*")

# Names of the std namespace: functions, their const forms, tables and type information of classes. A library that was
# linked against a libtorch_cpu.so that has its own copies of some refers to these without a version (seen in the
# wheel of xformers 0.0.31). A template of the namespace over a type of PyTorch's is PyTorch's.
_STANDARD_SYMBOL = re.compile(r"_Z(?!\w*(?:2at|3c10|5torch|6caffe2))(?:T[VISTC])?(?:N[KVR]*)?S[tabsiod]\w*")

_PYTHON_LIBRARY = re.compile(r"libpython3(?:\.\d+)?\w*\.so(?:\.[\d.]+)?")


def provides_library(name: str) -> bool:
    """Say whether a needed library is the machine's own affair. An interpreter brings its own libpython."""
    return name in SYSTEM_LIBRARIES or name in DRIVER_LIBRARIES or bool(_PYTHON_LIBRARY.fullmatch(name))


def is_python_symbol(symbol: str) -> bool:
    """Say whether a symbol is one of Python's C API."""
    return bool(_PYTHON_SYMBOL.fullmatch(symbol))


def provides_symbol(reference: Reference, needed: frozenset[str]) -> bool:
    """Say whether the machine or the interpreter provides a symbol to a module that needs those libraries.

    A symbol bound to a version of the C or C++ library depends on that version: whether the machine's library is
    new enough is what the platform tag says. Python's C API comes from the process that imports the module.
    """
    if is_python_symbol(reference.symbol):
        return True
    if reference.version:
        bound_to_system = reference.library in SYSTEM_LIBRARIES and reference.library in needed
        return bound_to_system and bool(_SYSTEM_VERSION.match(reference.version))
    if reference.symbol in glibc_symbols():
        # A library that was linked without naming libc (or libdl, before they were one) has no version of it: these
        # are bound to the process's own, which every interpreter has loaded.
        return True
    if _DRIVER_SYMBOL.fullmatch(reference.symbol):
        return bool(needed & DRIVER_LIBRARIES)
    return "libstdc++.so.6" in needed and bool(_STANDARD_SYMBOL.fullmatch(reference.symbol))
