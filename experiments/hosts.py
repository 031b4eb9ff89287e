"""Compiles the host side of every shape of a build against the real PyTorch, without compiling a kernel.

    python experiments/hosts.py [--packages flash-attn==2.8.3,...] [--torch 2.11.0,...] [--only full,...] [--jobs 1]
    python experiments/hosts.py --sample 3 --seed 7

Shapes are each profile, each feature alone left out and alone kept, none of them, single head dimensions and dtypes;
profiles and none as a universal wheel too. Upstream's setup.py is run through the seat (received.py), the passes of
each shape's plan are applied to what it hands over, and the units for the host compiler are compiled by the commands
that come out of them: `full` to an object, the others with -fsyntax-only. Each is compiled

as built   as a build does;
fallback   as a build does where that fails: for full and without any feature;
real       as a build does for a PyTorch whose layout of what kernels are given is not known: for these two;
alone      of headers of ours that stand in front of PyTorch's, each one by itself.

What is equal in text and command is compiled once, and what compiled before, with the same files, is not compiled
again. By default every PyTorch minor that exists with CUDA 13; one that can't be installed is listed as not run.
--sample is for CI: `full`, with its fallback, and nothing as plain and universal wheels, and so many others by --seed.

Exit code 1 where one does not compile. The first run takes some 20 minutes of CPU time for each PyTorch, a later one
a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from attnforge import Machine, Planned, plan
from attnforge.compile.graph.commands import redirected
from attnforge.compile.run import diagnose
from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.files import write_whole
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Unit
from attnforge.workflow.answers import answered
from attnforge.workflow.inputs import Inputs
from attnforge.workflow.passes import passes_of
from builds import NOTHING, Shape, cuda_13_minors, packages, planned, shapes_of
from cases import positive, words
from measure import say
from received import Call, inputs_of, received

AS_BUILT, FALLBACK, REAL, ALONE = "as built", "fallback", "real headers", "alone"

_EXTREMES = ("full", NOTHING)
_EMPTY = "attnforge_nothing.cpp"


@dataclass(frozen=True)
class Compile:
    """A host compiler's run: the command, the files of ours that it reads (below ``generated``), what it sees.

    ``whole`` is whether an object is made; otherwise the compiler stops before it optimizes.
    """

    unit: Unit
    files: tuple[GeneratedFile, ...]
    generated: str
    environment: Mapping[str, str]
    whole: bool
    stands_on: str

    @property
    def key(self) -> str:
        """Name it by all that decides whether it succeeds."""
        told = {
            "argv": self.unit.argv,
            "cwd": self.unit.cwd,
            "ignores": self.unit.ignores,
            "files": [asdict(file) for file in self.files],
            "environment": {name: value for name, value in self.environment.items() if name != "PATH"},
            "whole": self.whole,
            "stands_on": self.stands_on,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Row:
    """A line of the table: what is compiled for which shape, and how it is compiled."""

    package: str
    torch: str
    shape: str
    way: str
    compile: Compile


@dataclass(frozen=True)
class Outcome:
    """What came of a compile: ``error`` is "" where it succeeded; ``seconds`` of CPU time."""

    error: str
    seconds: float
    cached: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=words, default=packages(), help="NAME==VERSION, default all")
    parser.add_argument("--torch", type=words, default=cuda_13_minors(), help="default each minor with CUDA 13")
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="of the target")
    parser.add_argument("--only", type=words, default=(), help="shapes by name, default all")
    parser.add_argument("--sample", type=int, default=-1, help="so many shapes beside those that are always compiled")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, default 0")
    parser.add_argument("--jobs", type=positive, default=1, help="compiles at once, default 1")
    parser.add_argument("--json", action="store_true", help="print JSON, every row in it")
    given = parser.parse_args(arguments)
    machine = Machine(os.environ)
    rows, not_run, broken = [], [], []
    for package in given.packages:
        shapes = [shape for shape in shapes_of(package) if not given.only or shape.name in given.only]
        thorough = given.sample < 0
        if not thorough:
            shapes = sampled(shapes, given.sample, given.seed)
        for torch in given.torch:
            try:
                found = list(rows_of(machine, package, torch, given.python, shapes, thorough=thorough))
                rows += found
                if not found:
                    not_run.append(f"{package}, PyTorch {torch}: there is no host unit of these shapes")
            except (HostError, RequestError) as error:
                not_run.append(f"{package}, PyTorch {torch}: {error.what}")
            except AttnforgeError as error:
                broken.append(f"{package}, PyTorch {torch}: {error.what}")
    rows = settled(rows)
    outcomes = compiled([row.compile for row in rows], machine.folders.cache / "hosts" / "results", given.jobs)
    print(report(rows, outcomes, not_run, broken, as_json=given.json))
    sys.exit(bool(broken) or any(outcome.error for outcome in outcomes.values()))


def sampled(shapes: Sequence[Shape], count: int, seed: int) -> list[Shape]:
    """Return what is always compiled, everything and nothing, and some of the others."""
    always = [shape for shape in shapes if shape.name in _EXTREMES]
    others = [shape for shape in shapes if shape not in always]
    return [*always, *random.Random(seed).sample(others, min(count, len(others)))]


def settled(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with one compile for what is made an object for one shape, and read alone for another."""
    wholes = {replace(row.compile, whole=False).key: row.compile for row in rows if row.compile.whole}
    return [replace(row, compile=wholes.get(row.compile.key, row.compile)) for row in rows]


# --- what is compiled


def rows_of(
    machine: Machine, package: str, torch: str, python: str, shapes: Iterable[Shape], *, thorough: bool
) -> Iterator[Row]:
    """Yield what there is to compile of a package with one PyTorch.

    HostError where source, PyTorch or compilers can't be had, RequestError where nothing of the package can be built
    for that target; another error where upstream's build or a pass fails.
    """
    plan(machine, Shape("full").request(package, python, torch))
    room = machine.folders.ensure().cache / "hosts"
    generated = room / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    answers: dict[str, frozenset[str]] = {}
    for shape in shapes:
        made = planned(machine, package, shape, python, torch)
        if made is not None:
            inputs = inputs_of(machine, made, room)
            asked = inputs.environment.digest
            if asked not in answers:
                answers[asked] = answered(machine, made.plan, made.located.recipe, inputs, generated)
            calls = received(machine, made, inputs, room)
            yield from shape_rows(made, shape, inputs, calls, answers[asked], str(generated), thorough=thorough)


def shape_rows(
    made: Planned,
    shape: Shape,
    inputs: Inputs,
    calls: Iterable[Call],
    answers: Collection[str],
    generated: str,
    *,
    thorough: bool,
) -> Iterator[Row]:
    """Yield what there is to compile of one shape; not ``thorough``, of ``full`` alone with fallbacks."""
    plan, recipe = made.plan, made.located.recipe
    if plan.is_universal:
        plan = plan.at(plan.pairs[0]).model_copy(update={"groups": plan.groups})
    ways: list[tuple[str, Collection[str]]] = [(AS_BUILT, answers)]
    if thorough and answers and shape.name in _EXTREMES and not shape.universal:
        ways.append((REAL, ()))
    for call in calls:
        for way, given in ways:
            graph = call.graph
            for change in passes_of(plan, recipe, inputs, Path(generated), given):
                graph = change(graph)
            falling = shape.name in _EXTREMES if thorough else str(shape) == "full"
            for kind, compile in compiles_of(
                graph, call, inputs, generated, whole=str(shape) == "full" and way == AS_BUILT, falling=falling
            ):
                if kind == ALONE and not thorough:
                    continue
                yield Row(
                    f"{plan.package} {plan.version}",
                    plan.target.torch,
                    str(shape),
                    way if kind == AS_BUILT else kind,
                    compile,
                )


def compiles_of(
    graph: CompileGraph, call: Call, inputs: Inputs, generated: str, *, whole: bool, falling: bool
) -> Iterator[tuple[str, Compile]]:
    """Yield the compiles of a graph's host units, and in which way each is one.

    ``whole`` is whether those that are built are compiled to objects, ``falling`` whether fallbacks are compiled.
    """
    compiler = inputs.compiler
    stands_on = json.dumps(
        (f"{compiler.name} {compiler.version}", inputs.environment.digest, *inputs.environment.freeze)
    )

    def one(unit: Unit, *, whole: bool = False) -> Compile:
        return Compile(unit, read_by(unit, graph.files, generated), generated, call.environment, whole, stands_on)

    for unit in graph.compiled:
        if unit.language is Language.CXX:
            yield AS_BUILT, one(unit, whole=whole)
            if falling:
                yield from ((FALLBACK, one(other)) for other in unit.fallback)
            yield from ((ALONE, one(other)) for other in by_themselves(unit, graph.files, generated))


def read_by(unit: Unit, files: Iterable[GeneratedFile], generated: str) -> tuple[GeneratedFile, ...]:
    """Return the files of ours that a command can read: those that it names, and those in folders that it names."""
    named = [word.removeprefix("-I") for word in unit.argv if word.removeprefix("-I").startswith(generated)]
    return tuple(file for file in files if any(f"{file.path}/".startswith(f"{path}/") for path in named))


def by_themselves(unit: Unit, files: Iterable[GeneratedFile], generated: str) -> Iterator[Unit]:
    """Yield, for each header that stands in front of PyTorch's, a unit that includes nothing else."""
    first = [word for before, word in zip(("", *unit.argv), unit.argv, strict=False) if before == "-include"]
    nothing = f"{generated}/{_EMPTY}"
    for file in read_by(unit, files, generated):
        if file.path not in first:
            plain = [word for word in unit.argv if word not in ("-include", *first)]
            argv = [nothing if word in unit.sources else word for word in plain]
            yield replace(unit, sources=(nothing,), argv=(*argv, "-include", file.path), fallback=())


# --- compiling


def compiled(compiles: Iterable[Compile], results: Path, jobs: int) -> dict[str, Outcome]:
    """Compile what did not compile before; what came of each, by its key."""
    results.mkdir(parents=True, exist_ok=True)
    waiting = {one.key: one for one in compiles}
    say(f"{len(waiting)} different compiles")

    def work(key: str) -> Outcome:
        result = results / f"{key}.json"
        if result.exists():
            return Outcome("", json.loads(result.read_text(encoding="utf-8"))["seconds"], cached=True)
        outcome = run(waiting[key])
        say(f"{waiting[key].unit.name}: {outcome.seconds:.0f} s {outcome.error or 'ok'}")
        if not outcome.error:
            write_whole(result, json.dumps({"seconds": outcome.seconds}))
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(waiting, pool.map(work, waiting), strict=True))


def run(compile: Compile) -> Outcome:
    """Run the compiler, with the files of ours in a place of their own."""
    unit = compile.unit
    with tempfile.TemporaryDirectory(prefix="attnforge-") as name:
        place = f"{name}/generated"
        for file in (*compile.files, GeneratedFile(f"{compile.generated}/{_EMPTY}", "")):
            moved = Path(file.path.replace(compile.generated, place))
            moved.parent.mkdir(parents=True, exist_ok=True)
            moved.write_text(file.text.replace(compile.generated, place), encoding="utf-8")
        argv = redirected(unit, f"{name}/made.o", f"{name}/made.d")
        assert argv is not None, unit.argv
        words = [word.replace(compile.generated, place) for word in argv]
        environment = {key: value for key, value in compile.environment.items() if key not in unit.ignores}
        Path(unit.cwd).mkdir(parents=True, exist_ok=True)
        with open(f"{name}/log", "w+b") as log:  # noqa: PTH123
            child = subprocess.Popen(
                words if compile.whole else [*words, "-fsyntax-only"],
                cwd=unit.cwd,
                env={**environment, "TMPDIR": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            text = log.read().decode(errors="replace")
        seconds = round(usage.ru_utime + usage.ru_stime, 1)
        if child.returncode == 0:
            return Outcome("", seconds)
        first = diagnose.first_error(text).partition("\n")[0].replace(f"{place}/", "generated/")
        return Outcome(first or f"exit code {child.returncode}", seconds)


# --- the report


def report(
    rows: Sequence[Row],
    outcomes: Mapping[str, Outcome],
    not_run: Sequence[str],
    broken: Sequence[str],
    *,
    as_json: bool,
) -> str:
    """Return what is printed at the end."""
    lines = [(row.package, row.torch, row.shape, row.way, outcomes[row.compile.key]) for row in rows]
    if as_json:
        names = ("package", "torch", "shape", "way")
        found = [{**dict(zip(names, line[:4], strict=True)), **asdict(line[4])} for line in lines]
        return json.dumps({"rows": found, "not_run": list(not_run), "broken": list(broken)}, indent=1)
    text = [
        f"{package:<26} {torch:<7} {shape:<38} {way:<12} {outcome.seconds:>6.1f} s  {outcome.error or 'ok'}"
        for package, torch, shape, way, outcome in lines
    ]
    failed = sum(bool(outcome.error) for outcome in outcomes.values())
    fresh = [outcome.seconds for outcome in outcomes.values() if not outcome.cached]
    text += [*(f"not run: {one}" for one in not_run), *(f"failed: {one}" for one in broken)]
    text += ["", *summary(rows, outcomes), ""]
    text += [
        f"{len(rows)} compiles of shapes, {len(outcomes)} different ones: {failed} failed; "
        f"{len(fresh)} compiled now, {sum(fresh):.0f} s of CPU"
    ]
    return "\n".join(text)


def summary(rows: Sequence[Row], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return a line for each package and PyTorch."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.package, row.torch), []).append(row)
    lines = []
    for (package, torch), own in found.items():
        each = {row.compile.key: outcomes[row.compile.key] for row in own}
        failed = sum(bool(outcome.error) for outcome in each.values())
        seconds = sum(outcome.seconds for outcome in each.values())
        shapes = len({row.shape for row in own})
        lines.append(
            f"{package:<26} {torch:<7} {shapes:>3} shapes {len(each):>4} compiles {seconds:>7.0f} s of CPU  "
            + (f"{failed} failed" if failed else "all good")
        )
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
