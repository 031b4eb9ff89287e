"""Stands in for PyTorch: a version, a library to link against, and utils.cpp_extension. Nothing here is PyTorch's."""

import ctypes
from pathlib import Path

from torch.version import __version__

__all__ = ["__version__", "cuda"]


class cuda:  # noqa: N801 - a module in PyTorch
    """No GPU, on any machine."""

    is_available = staticmethod(lambda: False)
    is_initialized = staticmethod(lambda: False)


# Extension modules name these libraries without a folder: like PyTorch, they have to be in the process already.
_HERE = Path(__file__).parent
for _library in (*_HERE.parent.glob("nvidia/*/lib/libcudart.so.*"), _HERE / "lib" / "libc10.so"):
    ctypes.CDLL(str(_library), mode=ctypes.RTLD_GLOBAL)
