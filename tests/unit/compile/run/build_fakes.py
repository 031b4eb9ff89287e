"""What tests of the engine's parts share: units, calls, figures, and programs that are functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from attnforge.compile.run.executor import Ended, Executor, Run
from attnforge.compile.run.held import Held
from attnforge.compile.run.work import WHOLE, Batch, Task, Work, begin
from attnforge.model.cost import Prediction
from attnforge.model.graph import CompileGraph, Language, Unit

GB = 10**9
SECOND = Prediction(1.0, GB)


class Costs:
    """Each step takes a second and a gigabyte."""

    def predict(self, unit: Unit, label: str = "") -> Prediction:
        return SECOND

    def measured(self, unit: Unit, label: str = "") -> Prediction | None:
        return None


def unit(folder: Path, name: str = "a", language: Language = Language.CXX, **changes: object) -> Unit:
    """A unit whose source is there."""
    source, output = folder / f"{name}.cc", folder / "build" / f"{name}.o"
    source.write_text(name)
    values: dict[str, object] = {
        "output": str(output),
        "sources": (str(source),),
        "argv": ("g++", "-c", str(source), "-o", str(output)),
        "cwd": str(folder),
        "language": language,
    }
    return Unit(**{**values, **changes})  # type: ignore[arg-type]


def call(*units: Unit, said: list[str] | None = None) -> Batch:
    """A call of ninja for these units."""
    graph = CompileGraph(units)
    lines: list[str] = [] if said is None else said
    return Batch(0, graph, graph, (), {"PATH": "/usr/bin:/bin"}, lines.append)


def works(batch: Batch, folder: Path) -> list[Work]:
    return [
        begin(unit, batch, folder / f"work{number}", folder / f"temporary{number}", number)
        for number, unit in enumerate(batch.graph.units)
    ]


def whole(work: Work, predicted: Prediction = SECOND) -> Task:
    return Task(work, WHOLE, predicted)


@dataclass
class Programs:
    """An executor that runs functions. ``act`` gets each run and returns its exit code; it writes an object if 0."""

    act: Callable[[Run], int] = lambda run: 0
    runs: list[Run] = field(default_factory=list)
    printed: str = ""

    def run(self, run: Run, started: Callable[[int], object] = int) -> Ended:
        self.runs.append(run)
        started(1)
        run.log.write_text(self.printed)
        code = self.act(run)
        if code == 0 and "-o" in run.argv:
            Path(run.argv[run.argv.index("-o") + 1]).write_text("object")
        return Ended(code, 2.0, 1.5, GB, stopped=False, late_bytes=GB)

    @property
    def memory(self) -> Programs:
        return self

    used_bytes = peak_bytes = 5

    def held(self, session: int) -> Held:
        return Held()

    @property
    def executor(self) -> Executor:
        return cast(Executor, self)
