"""Finds the C++ compiler of a build."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from attnforge.errors import HostError
from attnforge.model.graph import CompileGraph, Language

_COMPILER = re.compile(r"(?:[\w.]+-)*(?:c\+\+|g\+\+|clang\+\+|cc|gcc|clang)(?:-[\d.]+)?")


def host_compiler(graph: CompileGraph, environment: Mapping[str, str]) -> str:
    """Return the path of the C++ compiler: the one that upstream's build uses, else the usual names on its PATH."""
    cxx = (unit.argv[0] for unit in graph.units if unit.language is Language.CXX)
    # Not a cache or another program in front of the compiler, which needs more than its name.
    used = [program for program in cxx if _COMPILER.fullmatch(Path(program).name)]
    usual = [environment.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    for name in (*used, *usual):
        found = shutil.which(name, path=environment.get("PATH", os.defpath)) if name else None
        if found:
            return found
    raise HostError("no C++ compiler was found", hint="install one (apt install g++), or set CXX to its path")
