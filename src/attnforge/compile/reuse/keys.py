"""The keys under which the outputs of nvcc's pure steps are cached: the same input, the same key, on any machine.

cudafe++, cicc and ptxas are functions of the files that they are given, of their options and of a few variables.
Watched with CUDA 13.0 (openat, stat, getenv): they read nothing else, libdevice is inside cicc. An older cicc
gets libdevice by an argument: the contents of any file that an argument names are part of the key.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from attnforge.compile.nvcc.dryrun import MODULE_ID
from attnforge.compile.nvcc.steps import UNREAD, Step, Tool
from attnforge.compile.reuse.tools import is_script
from attnforge.files import known_sha256
from attnforge.model.base import digest_of

SCHEMA = 1

PURE = frozenset({Tool.CUDAFE, Tool.CICC, Tool.PTXAS})

# Variables that change what the three print or accept, among those that they ask for (getenv watched, CUDA 13.0).
# NVVMIR_LIBRARY_DIR is nvcc's own: it makes an argument of it.
_READ_BY_TOOLS = re.compile(
    r"EDG_\w+|LLVM_\w+|NVVM(?!IR_LIBRARY_DIR$)\w*|NV_NVVM_\w+|USR_INCLUDE|CAN_FINALIZE_DEBUG|DUMP_KNOBS_TO_FILE"
)

# With these, cicc writes the sizes and dates of sources into the PTX.
_LOOKS_AT_SOURCES = {"-g", "-lineinfo", "-generate-line-info", "--generate-line-info", "--debug_mode"}

_ABSOLUTE = re.compile(r"(?:\A|=)(/.*)")


class _NotPureError(Exception):
    """What the step makes may depend on more than can be seen."""


def step_key(step: Step, environment: Mapping[str, str]) -> str | None:
    """Return the key of a step's outputs, hex SHA-256; None for a step that is not pure or writes nothing.

    ``environment`` is the one that the step runs in. What the step reads must be there. The key holds the program's
    contents, those of all that is read, the options, and variables; no path, no temporary name, nothing of the other
    architectures. None also where the program is not found or is a script: nobody knows what a script runs. OSError
    where a file can't be read.
    """
    if step.tool not in PURE or not step.writes:
        return None
    program = shutil.which(step.argv[0], path=environment.get("PATH", os.defpath))
    if program is None or is_script(program):
        return None
    try:
        options = list(_options(step))
    except _NotPureError:
        return None
    described = {
        "schema": SCHEMA,
        "tool": step.tool.value,
        "program": known_sha256(program),
        "options": options,
        "environment": sorted(item for item in environment.items() if _READ_BY_TOOLS.fullmatch(item[0])),
    }
    return digest_of(described)


def _options(step: Step) -> Iterator[list[str]]:
    """Yield what each word adds to the key: itself, the contents of a file, or a mark for one that is written."""
    before = ""
    for word in step.argv[1:]:
        path = os.path.normpath(os.path.join(step.cwd, word))  # noqa: PTH118
        if step.tool is Tool.CICC and word in _LOOKS_AT_SOURCES:
            raise _NotPureError(word)
        if before == MODULE_ID or path in step.reads:
            yield ["read", known_sha256(path)]
        elif path in step.writes or (step.tool, before) in UNREAD:
            yield ["written"]
        else:
            yield list(_plain(word))
        before = word


def _plain(word: str) -> Iterator[str]:
    """Yield a word that names no file of the steps; a file of the toolkit counts by its contents."""
    match = _ABSOLUTE.search(word)
    if match is None:
        yield from ("word", word)
    elif Path(match[1]).is_file():
        yield from ("file", word[: match.start(1)], known_sha256(match[1]))
    else:
        raise _NotPureError(word)
