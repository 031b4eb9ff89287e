"""What upstream's build hands to the seat: its compile graphs, without anything being compiled.

Upstream's setup.py runs as in a build. Its calls of ninja are answered with objects that have no content, so that it
links and packs them, and the graphs are kept in a room of the cache folder. A source is laid out once for all runs: the
commands in a graph name its files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnforge import Machine, Planned
from attnforge.compile.nvcc.hostcompiler import host_compiler
from attnforge.compile.seat.server import FirstError, Say, Server, write_seat
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.provision.store import locked, provide
from attnforge.workflow.inputs import Inputs, host_compiler_of, provide_pinned
from attnforge.workflow.layout import lay_out_source, requirements_of
from attnforge.workflow.upstream import build_wheel
from attnforge.workflow.variables import upstream_environment
from measure import command, say

# What a host compiler sees of the environment. Others, such as a proxy's, are not kept in a file.
_SEEN = ("CPATH", "PATH")


@dataclass(frozen=True)
class Call:
    """One call of ninja: what it was to make, and the variables that its compilers see."""

    graph: CompileGraph
    environment: Mapping[str, str]


def inputs_of(machine: Machine, planned: Planned, room: Path) -> Inputs:
    """Provide source, environment and toolchain of a plan. HostError where one can't be had."""
    plan = planned.plan
    pinned = json.dumps(plan.source.to_json(), sort_keys=True)
    entry = room / "sources" / _digest(plan.package, plan.version, pinned)

    def lay_out(folder: Path) -> dict[str, Any]:
        return {"source": str(lay_out_source(machine, planned.located, folder / "tree", say))}

    source = Path(provide(entry, lay_out)["source"])
    needed = requirements_of(plan, planned.located, source)
    target = plan.target
    environment = machine.environment(target.python, target.torch, target.cuda, needed)
    compiler = host_compiler_of(machine, plan.toolchain)
    return Inputs(source, provide_pinned(machine, plan.toolchain, compiler), environment, compiler)


def received(machine: Machine, planned: Planned, inputs: Inputs, room: Path) -> tuple[Call, ...]:
    """Return the calls of ninja that upstream's build makes for a plan. BuildError where that build fails."""
    plan = planned.plan
    told = {
        "source": str(inputs.source),
        "settings": plan.settings,
        "target": plan.target.to_json(),
        "toolchain": plan.toolchain.to_json(),
        "environment": (inputs.environment.digest, *inputs.environment.freeze),
    }
    entry = room / "received" / _digest(json.dumps(told, sort_keys=True))
    facts = provide(entry, lambda folder: {"calls": _run(machine, planned, inputs, folder)})
    return tuple(Call(_graph(call["units"]), call["environment"]) for call in facts["calls"])


def _run(machine: Machine, planned: Planned, inputs: Inputs, folder: Path) -> list[dict[str, Any]]:
    """Run upstream's build in ``folder`` and return its calls as JSON."""
    plan, recipe = planned.plan, planned.located.recipe
    say(f"{plan.package} {plan.version}: running upstream's setup.py with PyTorch {plan.target.torch}")
    calls: list[dict[str, Any]] = []
    making = threading.Lock()

    def make(graph: CompileGraph, environment: Mapping[str, str], answer: Say) -> int:
        """Make every object without content."""
        calls.append(
            {
                "units": [asdict(unit) for unit in graph.units],
                "environment": {name: environment[name] for name in _SEEN if name in environment},
            }
        )
        with making:
            empty = _empty_object(host_compiler(graph, environment), folder, environment)
        for unit in graph.units:
            Path(unit.output).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(empty, unit.output)
        answer(f"{len(graph.units)} objects without content")
        return 0

    with (
        locked(inputs.source),
        tempfile.TemporaryDirectory(prefix="attnforge-") as name,
        Server(Path(name) / "socket", make, FirstError()),
        (folder / "log.txt").open("w", encoding="utf-8") as log,
    ):
        # What an earlier run linked would be taken for up to date.
        shutil.rmtree(inputs.source / "build", ignore_errors=True)
        seat = Path(name) / "seat"
        seat.mkdir()
        write_seat(seat, sys.executable, Path(name) / "socket")
        environment = upstream_environment(machine, plan, recipe, inputs, folder, [seat], slots=1)
        build_wheel(inputs.source, inputs.environment.python, environment, None, folder, log)
    shutil.rmtree(folder / "upstream")
    return sorted(calls, key=lambda call: str(call["units"][0]["output"]))


def _empty_object(compiler: str, folder: Path, environment: Mapping[str, str]) -> Path:
    made = folder / "empty.o"
    if not made.exists():
        command([compiler, "-x", "c++", "-fPIC", "-c", "/dev/null", "-o", str(made)], folder, environment)
    return made


def _graph(units: Iterable[dict[str, Any]]) -> CompileGraph:
    """Read a graph as upstream wrote it: no pass has worked on it, so no unit has a fallback."""
    return CompileGraph(
        tuple(
            Unit(
                output=unit["output"],
                sources=tuple(unit["sources"]),
                argv=tuple(unit["argv"]),
                cwd=unit["cwd"],
                language=Language(unit["language"]),
                needs=tuple(unit["needs"]),
                depfile=unit["depfile"],
            )
            for unit in units
        )
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
