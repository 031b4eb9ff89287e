"""The PATH with which a host compiler is run, with nothing of CUDA on it."""

from __future__ import annotations

import os
from pathlib import Path

_TOOLS = "/usr/bin:/bin"  # where its assembler and linker are


def host_path(compiler: str) -> str:
    """Return the folder of a compiler (a path) and those of its tools, for PATH."""
    return os.pathsep.join((str(Path(compiler).parent), _TOOLS))
