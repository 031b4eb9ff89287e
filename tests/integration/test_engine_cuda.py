"""The engine takes real nvcc calls apart: fallbacks, the cache of steps and objects, what a second target shares."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from attnforge.compile.graph.passes.architectures import architectures
from attnforge.compile.graph.passes.group import group
from attnforge.compile.graph.passes.reproducible import reproducible
from attnforge.compile.graph.passes.share import share
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import Sharing
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine, Watch
from attnforge.compile.run.summary import Summary
from attnforge.errors import AttnforgeError
from attnforge.model.events import Event, JobFinished, Message
from attnforge.model.graph import CompileGraph, InParts, Pass, Unit
from attnforge.model.plan import BuildPlan
from attnforge.model.sharing import Proof, Shared, merged
from attnforge.model.target import Architecture
from attnforge.workflow.prover import Prover, Verdict

NVCC = shutil.which("nvcc")

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(NVCC is None, reason="no nvcc on PATH"),
]

SETUP = """
import subprocess, sys
from pathlib import Path
here, nvcc = Path(sys.argv[1]), sys.argv[2]
build = here / "build"
build.mkdir(exist_ok=True)
lines = ["ninja_required_version = 1.3", f"nvcc = {nvcc}", "rule cuda_compile",
         f"  command = $nvcc -I{here / 'include'} -Xcompiler -fPIC -c $in -o $out", ""]
lines += [f"build {build / (s.stem + '.o')}: cuda_compile {s}" for s in sorted((here / "src").glob("*.cu"))]
(build / "build.ninja").write_text("\\n".join(lines) + "\\n", encoding="utf-8")
sys.exit(subprocess.run(["ninja", "-v"], cwd=build).returncode)
"""

KERNEL = """
#include "common.h"
template<> void launch<{number}>(float *x) {{ scale<{number}><<<1, 32>>>(x); }}
"""
COMMON = """
#pragma once
template<int N> __global__ void scale(float *x) { x[threadIdx.x] *= N; }
template<int N> void launch(float *x);
"""
SM80, SM90 = Architecture.parse("80"), Architecture.parse("90")
PAIR = ("80", "90")


@dataclass
class Project:
    """A fake upstream project with two units, each a specialization, as FlashAttention 2's are."""

    folder: Path
    cache: Path
    events: list[Event] = field(default_factory=list)
    nvcc: str = str(NVCC)

    @classmethod
    def make(cls, folder: Path, cache: Path) -> Project:
        (folder / "src").mkdir(parents=True)
        (folder / "include").mkdir()
        (folder / "include" / "common.h").write_text(COMMON)
        for number, name in ((2, "two"), (3, "three")):
            (folder / "src" / f"{name}.cu").write_text(KERNEL.format(number=number))
        (folder / "setup.py").write_text(SETUP)
        return cls(folder, cache)

    def object(self, name: str) -> Path:
        return self.folder / "build" / f"{name}.o"

    def build(
        self,
        *own: Pass,
        codes: Sequence[Architecture] = (SM90,),
        secret: bytes = b"",
        fresh: bool = True,
        proofs: Sequence[Proof] = (),
        watch: Watch | None = None,
    ) -> tuple[Summary, AttnforgeError | None]:
        """Build with nothing in the plan's folder where it is to be ``fresh``; what is cached is in ``cache``.

        Units share what is in ``proofs``; ``watch`` sees each step.
        """
        if fresh:
            shutil.rmtree(self.folder / "plan", ignore_errors=True)
        prefixes = {str(self.folder): "source"}
        cache = StepCache(self.cache, limit_bytes=10**9, secret=secret, warn=lambda text: None)
        with Engine(
            folder=self.folder / "plan",
            slots=2,
            budget_bytes=8 * 10**9,
            passes=(*own, architectures(tuple(codes)), reproducible(prefixes), share(shared_by(proofs))),
            costs=CostModel(self.folder / "costs.json"),
            observe=self.events.append,
            log=io.StringIO(),
            temporary=self.folder / "tmp",
            reuse=Reuse(cache, Prefixes(prefixes), Sharing(proofs), whole=watch is None),
            watch=watch,
        ) as engine:
            path = f"{engine.seat_folder}:{Path(self.nvcc).parent}:/usr/bin:/bin"
            command = [sys.executable, str(self.folder / "setup.py"), str(self.folder), self.nvcc]
            subprocess.run(command, env={"PATH": path}, capture_output=True, check=False)
            return engine.summary, engine.error


def shared_by(proofs: Sequence[Proof]) -> tuple[Shared, ...]:
    return tuple(
        Shared(of=proof.of, code=proof.code, units=("two.cu", "three.cu"), proof=proof.digest) for proof in proofs
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "one", tmp_path / "cache")


def ran(summary: Summary) -> dict[str, int]:
    return {step.tool: step.ran for step in summary.steps if step.ran}


def named(graph: CompileGraph) -> CompileGraph:
    return graph.map(lambda unit: replace(unit, kernel=f"forward-hdim64-{unit.name.removesuffix('.cu')}"))


def merging(project: Project) -> tuple[Pass, Pass]:
    names = ("forward-hdim64-three", "forward-hdim64-two")
    return named, group([names], str(project.folder / "generated"), lambda path: Path(path).read_text())


def symbols(path: Path) -> set[str]:
    printed = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
    return {line.split(maxsplit=2)[-1] for line in printed.splitlines() if " T " in line}


def test_each_step_is_a_job(project: Project) -> None:
    summary, error = project.build(codes=(SM80, SM90))
    assert error is None
    assert ran(summary) == {"preprocess": 6, "cudafe++": 2, "cicc": 4, "ptxas": 4, "fatbinary": 2, "compile": 2}
    steps = {event.step for event in project.events if isinstance(event, JobFinished)}
    assert {"cicc sm_80", "cicc sm_90", "ptxas sm_90", "cudafe++", "compile"} <= steps


def test_the_same_in_another_folder_compiles_nothing_and_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    project.build()
    other = Project.make(tmp_path / "another folder".replace(" ", "-"), project.cache)
    summary, error = other.build()
    assert error is None
    assert (summary.cached, summary.compiled, ran(summary)) == (2, 0, {})
    assert other.object("two").read_bytes() == project.object("two").read_bytes()


def test_a_second_architecture_repeats_nothing_of_the_first(project: Project) -> None:
    project.build(codes=(SM90,))
    summary, error = project.build(codes=(SM80, SM90))
    assert error is None
    assert (ran(summary)["cicc"], ran(summary)["ptxas"]) == (2, 2)
    assert "cudafe++" not in ran(summary)


def test_a_changed_header_is_compiled_and_one_with_the_same_text_is_not(project: Project) -> None:
    project.build()
    header = project.folder / "include" / "common.h"
    header.write_text(COMMON.replace("*= N", "+= N"))
    summary, _ = project.build()
    assert ran(summary)["cicc"] == 2
    header.write_text(COMMON)
    summary, _ = project.build()
    assert ran(summary) == {}


def test_a_header_that_newly_shadows_another_is_noticed(project: Project) -> None:
    project.build()
    (project.folder / "src" / "common.h").write_text(COMMON.replace("*= N", "-= N"))
    summary, _ = project.build()
    assert ran(summary)["cicc"] == 2


def test_what_another_secret_sealed_does_not_count(project: Project) -> None:
    project.build(secret=b"ours")
    assert ran(project.build(secret=b"ours")[0]) == {}
    assert ran(project.build(secret=b"theirs")[0])["cicc"] == 2


def test_entries_that_were_changed_do_not_reach_an_object(project: Project) -> None:
    project.build()
    whole = project.object("two").read_bytes()
    for path in (path for path in project.cache.rglob("*") if path.is_file()):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    summary, error = project.build()
    assert error is None
    assert ran(summary)["cicc"] == 2
    assert project.object("two").read_bytes() == whole


def test_entries_under_one_anothers_names_do_not_reach_an_object(project: Project) -> None:
    project.build()
    whole = project.object("two").read_bytes()
    paths = sorted(path for path in project.cache.rglob("*") if path.is_file() and path.stat().st_size > 100)
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(data)
    summary, _ = project.build()
    assert ran(summary)["cicc"] == 2
    assert project.object("two").read_bytes() == whole


def test_merged_units_are_one_compile(project: Project) -> None:
    summary, error = project.build(*merging(project))
    assert error is None
    assert (summary.compiled, summary.merged, ran(summary)["cicc"]) == (1, 1, 1)
    found = symbols(project.object("three")) | symbols(project.object("two"))
    assert {"void launch<2>(float*)", "void launch<3>(float*)"} <= found


def test_merged_units_that_do_not_compile_are_compiled_apart(project: Project) -> None:
    # Two explicit specializations of one template: the scan of the sources can't see that they are the same.
    for name, value in (("two", 5), ("three", 7)):
        path = project.folder / "src" / f"{name}.cu"
        path.write_text(path.read_text() + f"template<> struct trait<{value} - {value}> {{ int x{value}; }};\n")
    header = project.folder / "include" / "common.h"
    header.write_text(COMMON + "template<int N> struct trait {};\n")
    summary, error = project.build(*merging(project))
    assert error is None
    assert (summary.compiled, summary.merged) == (2, 1)
    assert "void launch<2>(float*)" in symbols(project.object("two"))
    assert "void launch<3>(float*)" in symbols(project.object("three"))
    (warning,) = [event for event in project.events if isinstance(event, Message) and event.level == "warning"]
    assert "redefinition" in warning.text or "already been defined" in warning.text
    # The next run of the same plan finds the objects of the units, and puts no empty ones over them.
    shutil.rmtree(project.folder / "build")
    again, error = project.build(*merging(project), fresh=False)
    assert error is None
    assert (again.compiled, again.reused) == (0, 2)
    assert "void launch<2>(float*)" in symbols(project.object("two"))
    assert "void launch<3>(float*)" in symbols(project.object("three"))


def test_a_mistake_in_a_merged_unit_is_told_by_the_units_own_name(project: Project) -> None:
    (project.folder / "src" / "two.cu").write_text(KERNEL.format(number=2) + "template<> void launch<2.5>(float *x);")
    _, error = project.build(*merging(project))
    assert error is not None
    assert "two.cu" in str(error)


def test_a_unit_falls_back_to_what_it_was(project: Project) -> None:
    def risky(unit: Unit) -> Unit:
        return replace(unit, argv=(*unit.argv, "-DSCALE=("), fallback=(unit,))

    header = project.folder / "include" / "common.h"
    header.write_text(COMMON + "#ifdef SCALE\nint f() { return SCALE; }\n#endif\n")
    summary, error = project.build(lambda graph: graph.map(risky))
    assert error is None
    assert summary.compiled == 2
    assert project.object("two").exists()


def test_architectures_share_what_is_proven_and_the_object_is_the_same(
    project: Project, tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    verdicts: list[Verdict] = []
    prover = Prover(make_plan(), Prefixes({str(project.folder): "source"}), "this test", verdicts.append)
    summary, error = project.build(codes=(SM80, SM90), watch=prover.watch)
    assert error is None
    assert ran(summary)["cicc"] == 4
    assert {(verdict.units, verdict.pair) for verdict in verdicts} == {(("three.cu",), PAIR), (("two.cu",), PAIR)}
    two, three = sorted((one.proof for one in verdicts if one.proof), key=lambda proof: proof.units[0].units)[::-1]
    objects = {name: project.object(name).read_bytes() for name in ("two", "three")}

    project.cache = tmp_path / "another cache"
    summary, error = project.build(codes=(SM80, SM90), proofs=[merged(two, three)])
    assert error is None
    assert ran(summary) == {"preprocess": 6, "cudafe++": 2, "cicc": 2, "ptxas": 4, "fatbinary": 2, "compile": 2}
    assert [step.shared for step in summary.steps if step.tool == "cicc"] == [2]
    assert {name: project.object(name).read_bytes() for name in objects} == objects
    assert not [event for event in project.events if isinstance(event, Message)]

    project.cache = tmp_path / "a third cache"
    summary, error = project.build(codes=(SM80, SM90), proofs=[two])
    assert error is None
    assert ran(summary)["cicc"] == 3
    assert {name: project.object(name).read_bytes() for name in objects} == objects
    (message,) = [event for event in project.events if isinstance(event, Message)]
    assert "three.cu: cicc sm_90 is run, its output is not proven" in message.text


def test_code_that_looks_at_its_architecture_is_not_proven(
    project: Project, make_plan: Callable[..., BuildPlan]
) -> None:
    head = "#ifdef __CUDA_ARCH__\n#define FACTOR __CUDA_ARCH__\n#else\n#define FACTOR 1\n#endif\n"
    text = COMMON.replace("#pragma once\n", f"#pragma once\n{head}").replace("*= N", "*= N * FACTOR")
    (project.folder / "include" / "common.h").write_text(text)
    verdicts: list[Verdict] = []
    prover = Prover(make_plan(), Prefixes({str(project.folder): "source"}), "this test", verdicts.append)
    _, error = project.build(codes=(SM80, SM90), watch=prover.watch)
    assert error is None
    assert len(verdicts) == 2
    assert all(verdict.proof is None and "scale" in verdict.why for verdict in verdicts)


SWITCHED = """
#pragma once
#ifndef SWITCH
#define SWITCH(COND, ...) \\
    if (COND) { constexpr bool On = true; __VA_ARGS__ } else { constexpr bool On = false; __VA_ARGS__ }
#endif
#ifndef BODY
#define BODY x[threadIdx.x] *= On ? N : N + factor;
#endif
template<int N, bool On> __global__ void scale(float *x, float factor) { BODY }
template<int N> __global__ void move(float *x) { x[threadIdx.x] += N; }
template<int N> void start(float *x, bool on) {
    SWITCH(on, scale<N, On><<<1, 32>>>(x, 2.f);)
    move<N><<<1, 32>>>(x);
}
template<int N> void launch(float *x);
"""
ON, OFF = (f"#define SWITCH(COND, ...) {{ constexpr bool On = {on}; __VA_ARGS__ }}\n" for on in ("true", "false"))
INDEX = "#define BODY\n"


def parted(project: Project, *parts: str) -> Pass:
    """Write headers of the kernels of each part; return the pass that compiles them in these parts."""
    paths = []
    for number, text in enumerate((INDEX, *parts)):
        paths.append(str(project.folder / f"{number}.h"))
        Path(paths[-1]).write_text(text)
    headers = InParts(paths[0], tuple(paths[1:]))
    return lambda graph: graph.map(lambda unit: replace(unit, parts=headers, fallback=(unit,)))


@pytest.fixture
def whole(project: Project) -> dict[str, bytes]:
    """Objects of units with two kernels that a switch tells apart, compiled at once."""
    (project.folder / "include" / "common.h").write_text(SWITCHED)
    for number, name in ((2, "two"), (3, "three")):
        text = KERNEL.format(number=number).replace("scale<", "start<").replace("<<<1, 32>>>(x)", "(x, x != nullptr)")
        (project.folder / "src" / f"{name}.cu").write_text(text)
    summary, error = project.build()
    assert error is None
    assert ran(summary)["cicc"] == 2
    project.cache = project.cache.with_name("another cache")
    return {name: project.object(name).read_bytes() for name in ("two", "three")}


def made(project: Project) -> dict[str, bytes]:
    return {name: project.object(name).read_bytes() for name in ("two", "three")}


def test_in_parts_the_object_is_the_same(project: Project, whole: dict[str, bytes]) -> None:
    summary, error = project.build(parted(project, ON, OFF))
    assert error is None
    assert made(project) == whole
    # For each unit an index and two parts.
    assert ran(summary) == {"preprocess": 10, "cudafe++": 2, "cicc": 6, "ptxas": 2, "fatbinary": 2, "compile": 2}
    assert not [event for event in project.events if isinstance(event, Message)]


def test_parts_that_lack_a_kernel_are_noticed(project: Project, whole: dict[str, bytes]) -> None:
    summary, error = project.build(parted(project, ON, ON))
    assert error is None
    assert ran(summary)["cicc"] == 8
    messages = [event.text for event in project.events if isinstance(event, Message)]
    assert len(messages) == 2
    assert all("its parts are not whole" in text for text in messages)
    assert made(project) == whole


def test_parts_that_do_not_compile_are_compiled_at_once(project: Project, whole: dict[str, bytes]) -> None:
    _, error = project.build(parted(project, ON, "#define SWITCH(COND, ...) nonsense\n"))
    assert error is None
    assert made(project) == whole
    assert any(event.text.endswith(" instead") for event in project.events if isinstance(event, Message))
