"""Calls of ninja that are not scheduled: CMake's own checks, and calls from inside of a command.

CMake asks whether something compiles by having ninja build a project of one file, and a no is an answer, not a failure
of the build. A command that calls ninja itself holds a slot and memory while it waits: what it asks for runs on these.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path, PurePosixPath

from attnforge.compile.reuse import objects
from attnforge.compile.run.executor import Executor, Run
from attnforge.compile.seat.server import Say
from attnforge.errors import BuildError
from attnforge.model.graph import CompileGraph, Language, Unit

INSIDE = "ATTNFORGE_INSIDE"
"""A variable for commands of a build that may call ninja: those that do not compile."""

# Where try_compile() has its projects, since CMake 3.25 and before (cmCoreTryCompile.cxx, cmake::CMakeFiles).
_CHECKS = (("CMakeFiles", "CMakeScratch"), ("CMakeFiles", "CMakeTmp"))


def is_aside(graph: CompileGraph, environment: Mapping[str, str]) -> bool:
    """Say whether a call of ninja is a check of CMake's, or comes from a command that another call runs."""
    return INSIDE in environment or any(map(_is_check, {unit.cwd for unit in graph.units}))


def _is_check(folder: str) -> bool:
    parts = PurePosixPath(folder).parts
    return any(pair in _CHECKS for pair in pairwise(parts))


def seen_inside(unit: Unit, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a unit's command sees."""
    return {**environment, INSIDE: "1"} if unit.language is Language.OTHER else dict(environment)


def run_aside(graph: CompileGraph, environment: Mapping[str, str], executor: Executor, log: Path, say: Say) -> int:
    """Run the commands of a graph as they were written, one after the other, until one fails: ninja's exit code."""
    for file in graph.files:
        objects.write_generated(file)
    for unit in _in_order(graph):
        Path(unit.output).parent.mkdir(parents=True, exist_ok=True)
        ended = executor.run(Run(unit.argv, unit.cwd, environment, log))
        say(log.read_text(encoding="utf-8", errors="replace"))
        if ended.code:
            say(f"FAILED: {unit.output}")
            return 1
    return 0


def _in_order(graph: CompileGraph) -> list[Unit]:
    units = {unit.output: unit for unit in graph.units}
    needs = {output: [one for one in unit.needs if one in units] for output, unit in units.items()}
    try:
        return [units[output] for output in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        raise BuildError("units of the graph wait for one another", why=", ".join(error.args[1])) from error
