"""Makes objects independent of the folder and the process that compiled them."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

from attnforge.compile.graph.each import each
from attnforge.model.graph import Language, Pass, Unit


def reproducible(prefixes: Mapping[str, str]) -> Pass:
    """Return the pass that takes paths, process ids and debug information out of objects.

    ``prefixes`` maps folders to the names that replace them in ``__FILE__``. A unit with a module id is compiled by
    nvcc's own steps, whose temporary names do not depend on the process. ``-g`` goes because a wheel is not debugged
    from it: in FlashAttention 2's flash_api.cpp it made 16 MB of 17 and 20 s of 54 (measured).
    """
    # Of several that match, gcc takes the last one: a folder that is inside another comes last.
    inner = sorted(
        prefixes.items(), key=lambda item: (sum(item[0].startswith(f"{other}/") for other in prefixes), item[1])
    )
    maps = tuple(f"-ffile-prefix-map={folder}={name}" for folder, name in inner)

    def settle(unit: Unit) -> Unit:
        argv = tuple(
            word for word in unit.argv if not re.fullmatch(r"-g\d?|-ggdb\d?|-lineinfo|--generate-line-info", word)
        )
        if unit.language is Language.CXX:
            return replace(unit, argv=(*argv, *maps))
        if unit.language is Language.CUDA:
            # nvcc takes such a value apart at commas, and hands the parts to a shell unchanged.
            flags = tuple(word for flag in maps for word in ("-Xcompiler", _through_nvcc(flag)))
            return replace(unit, argv=(*argv, *flags), module_id=module_id(unit, prefixes))
        return unit

    return each(settle)


def _through_nvcc(flag: str) -> str:
    """Return a flag of the host compiler as nvcc has to be given it: paths have spaces and commas."""
    return shlex.quote(flag).replace(",", r"\,")


def module_id(unit: Unit, prefixes: Mapping[str, str]) -> str:
    """Return the name that cudafe++ puts into symbols of internal linkage: in its own form, made of paths only."""
    source = unit.sources[0] if unit.sources else unit.output
    for folder, name in sorted(prefixes.items(), reverse=True):
        source = source.replace(folder, name)
    digest = hashlib.sha256(source.encode()).hexdigest()
    name = re.sub(r"\W", "_", PurePath(source).name)
    return f"_{digest[:8]}_{len(name)}_{name}_{digest[8:16]}_0"
