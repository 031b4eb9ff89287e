"""The engine as upstream's build meets it: a script that writes a build.ninja and calls ``ninja``, a real compiler."""

from __future__ import annotations

import errno
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.reuse.objects import ObjectStore
from attnforge.compile.reuse.reads import is_neutral
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine
from attnforge.compile.run.measured import PEAK_MARGIN
from attnforge.compile.run.summary import Summary
from attnforge.compile.run.work import Product
from attnforge.errors import AttnforgeError, BuildError, HostError
from attnforge.model.events import Event, GraphReceived, JobFinished, JobRetried, JobStarted
from attnforge.model.graph import CompileGraph, GeneratedFile, Pass

CXX = shutil.which("g++") or shutil.which("c++")

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH"),
]

UNITS = ("one", "two", "three", "four", "five")

SETUP = """
import subprocess, sys
from pathlib import Path
here, compiler = Path(sys.argv[1]), sys.argv[2]
build = here / "build"
build.mkdir(exist_ok=True)
escape = lambda path: str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
sources = sorted((here / "src").glob("*.cpp"))
lines = ["ninja_required_version = 1.3", f"cxx = {compiler}", "cflags = -O0 -fPIC", "", "rule compile",
         "  command = $cxx -MMD -MF $out.d $cflags -c $in -o $out", "  depfile = $out.d", "  deps = gcc", ""]
lines += [f"build {escape(build / (s.stem + '.o'))}: compile {escape(s)}" for s in sources]
if (here / "link").exists():  # as torch.utils.cpp_extension.load does
    objects = " ".join(escape(build / (s.stem + ".o")) for s in sources)
    lines += ["rule link", "  command = $cxx -shared $in -o $out", f"build all.so: link {objects}", "default all.so"]
(build / "build.ninja").write_text("\\n".join(lines) + "\\n", encoding="utf-8")
subprocess.run(["ninja", "--version"], check=True)
sys.exit(subprocess.run(["ninja", "-v", "-j", "2"], cwd=build).returncode)
"""


@dataclass
class Project:
    """A fake upstream project, with a compiler of its own."""

    folder: Path
    compiler: str
    events: list[Event] = field(default_factory=list)
    log: io.StringIO = field(default_factory=io.StringIO)
    printed: str = ""

    def object(self, name: str) -> Path:
        return self.folder / "build" / f"{name}.o"

    def clean(self) -> None:
        shutil.rmtree(self.folder / "build")

    def build(
        self, *passes: Pass, slots: int = 2, budget: int = 8 * 10**9
    ) -> tuple[int, Summary, AttnforgeError | None]:
        """Run the project's build through an engine: its exit code, what the engine did and its first failure."""
        with self.engine(*passes, slots=slots, budget=budget) as engine:
            result = subprocess.run(self.command(), env=environment(engine), capture_output=True, check=False)
            self.printed = result.stdout.decode()
            return result.returncode, engine.summary, engine.error

    def engine(self, *passes: Pass, slots: int = 2, reuse: Reuse | None = None, budget: int = 8 * 10**9) -> Engine:
        return Engine(
            folder=self.folder / "plan",
            slots=slots,
            budget_bytes=budget,
            passes=passes,
            costs=CostModel(self.folder / "costs.json"),
            observe=self.events.append,
            log=self.log,
            temporary=self.folder / "tmp",
            reuse=reuse,
        )

    def command(self) -> list[str]:
        return [sys.executable, str(self.folder / "setup.py"), str(self.folder), self.compiler]

    def seen(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def environment(engine: Engine) -> dict[str, str]:
    return {"PATH": f"{engine.seat_folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(engine.folder)}


@pytest.fixture(params=["plain", "mit Leerzeichen und Ümläuten"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    return make_project(tmp_path / str(request.param))


@pytest.fixture
def plain(tmp_path: Path) -> Project:
    return make_project(tmp_path / "plain")


def make_project(folder: Path) -> Project:
    (folder / "src").mkdir(parents=True)
    (folder / "setup.py").write_text(SETUP, encoding="utf-8")
    for name in UNITS:
        (folder / "src" / f"{name}.cpp").write_text(f"int {name}() {{ return 1; }}\n")
    assert CXX is not None
    return Project(folder, CXX)


def wrapper(project: Project, before: str) -> None:
    """Put a script in front of the compiler. $source is the unit's name, $state a folder that outlives it."""
    state = project.folder / "state"
    state.mkdir()
    script = project.folder / "compiler"
    script.write_text(
        "#!/bin/sh\n"
        f"state={shlex.quote(str(state))}\n"
        'for word; do case "$word" in *.cpp) source=$(basename "$word" .cpp);; esac; done\n'
        f'echo x >> "$state/$source"\n{before}\nexec {CXX} "$@"\n'
    )
    script.chmod(0o755)
    project.compiler = shlex.quote(str(script))


def runs(project: Project) -> dict[str, int]:
    return {
        path.name: path.read_text().count("x") for path in (project.folder / "state").iterdir() if path.suffix == ""
    }


def test_makes_every_object(project: Project) -> None:
    code, summary, error = project.build()
    assert (code, error) == (0, None)
    assert (summary.compiled, summary.reused, summary.empty) == (5, 0, 0)
    assert all(project.object(name).stat().st_size > 0 for name in UNITS)
    assert project.printed.startswith("1.13.0\n")
    assert "[5/5]" in project.printed
    assert summary.peak_bytes > 10**6
    assert 0 < summary.cpu_seconds < 60


def test_the_second_build_compiles_nothing(project: Project) -> None:
    project.build()
    first = {name: project.object(name).read_bytes() for name in UNITS}
    project.clean()
    code, summary, _ = project.build()
    assert (code, summary.compiled, summary.reused) == (0, 0, 5)
    assert {name: project.object(name).read_bytes() for name in UNITS} == first


def test_a_changed_source_alone_is_compiled_again(plain: Project) -> None:
    plain.build()
    (plain.folder / "src" / "two.cpp").write_text("int two() { return 2; }\n")
    _, summary, _ = plain.build()
    assert [unit.name for unit in summary.units if unit.how == "compiled"] == ["two.cpp"]
    assert summary.reused == 4


def test_a_damaged_object_is_compiled_again(plain: Project) -> None:
    plain.build()
    stored = next((plain.folder / "plan" / "objects").glob("*.o"))
    stored.write_bytes(b"\0" * stored.stat().st_size)
    plain.clean()
    _, summary, _ = plain.build()
    assert (summary.compiled, summary.reused) == (1, 4)


def test_nothing_is_left_behind(plain: Project) -> None:
    plain.build()
    assert list((plain.folder / "tmp").iterdir()) == []
    assert not (plain.folder / "plan" / "work").exists()
    assert sorted(path.name for path in (plain.folder / "build").iterdir()) == sorted(
        ["build.ninja", *(f"{name}.o" for name in UNITS)]
    )


def test_events_tell_what_happens(plain: Project) -> None:
    plain.build(slots=1)
    (received,) = plain.seen(GraphReceived)
    assert isinstance(received, GraphReceived)
    assert (received.units, received.compile, received.empty, received.reused) == (5, 5, 0, 0)
    assert len(plain.seen(JobStarted)) == len(plain.seen(JobFinished)) == 5
    assert {event.to_json()["slot"] for event in plain.seen(JobStarted)} == {0}


def test_passes_are_applied_and_generated_files_written(plain: Project) -> None:
    header = plain.folder / "generated" / "forced.h"

    def force(graph: CompileGraph) -> CompileGraph:
        forced = graph.map(lambda unit: replace(unit, argv=(*unit.argv, "-include", str(header))))
        return forced.with_files(GeneratedFile(str(header), "extern int forced; int forced_too;\n"))

    code, _, error = plain.build(force)
    assert (code, error) == (0, None)
    assert b"forced_too" in plain.object("one").read_bytes()


def test_an_error_in_a_generated_file_is_told_as_our_own_fault(plain: Project) -> None:
    header = plain.folder / "generated" / "forced.h"

    def force(graph: CompileGraph) -> CompileGraph:
        """As recipes do: a header before a unit, which has a fallback that includes it too."""
        forced = graph.map(lambda unit: replace(unit, argv=(*unit.argv, "-include", str(header))))
        forced = forced.map(lambda unit: replace(unit, argv=(*unit.argv, "-DTRIED"), fallback=(unit,)))
        return forced.with_files(GeneratedFile(str(header), "static_assert(sizeof(at::Missing) == 32);\n"))

    code, _, error = plain.build(force, slots=1)
    assert code != 0 and error is not None and error.exit_code == 1
    assert "in a file that attnforge generated" in error.what and str(header) in error.why


def test_a_measurement_corrects_what_is_predicted_for_its_like(plain: Project) -> None:
    plain.build(lambda graph: graph.map(lambda unit: replace(unit, cost_key="alike")), slots=1)
    predicted = [event.predicted_bytes for event in plain.events if isinstance(event, JobStarted)]
    measured = [event.peak_bytes for event in plain.events if isinstance(event, JobFinished)]
    assert predicted == [2 * 10**9, *(int(PEAK_MARGIN * max(measured[:number])) for number in range(1, 5))]


# Holds 400 MB for 1 s and 60 MB for 2 s, as cicc does with gigabytes.
HUMP = """
import time
held = b"x" * 400_000_000
time.sleep(1)
del held
held = b"x" * 60_000_000
time.sleep(2)
"""


def test_a_compile_past_its_peak_lets_another_start(plain: Project) -> None:
    wrapper(plain, f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(HUMP)}")
    for name in UNITS[2:]:
        (plain.folder / "src" / f"{name}.cpp").unlink()
    alike: Pass = lambda graph: graph.map(lambda unit: replace(unit, cost_key="alike"))  # noqa: E731
    times: list[tuple[float, Event]] = []

    def overlap() -> float:
        shutil.rmtree(plain.folder / "plan", ignore_errors=True)
        times.clear()
        code, _, error = plain.build(alike, slots=2, budget=600_000_000)
        assert (code, error) == (0, None)
        second = [clock for clock, event in times if isinstance(event, JobStarted)][1]
        return next(clock for clock, event in times if isinstance(event, JobFinished)) - second

    plain.events = Timed(times)
    assert overlap() <= 0  # Nothing is known yet: one has to end before the next starts.
    assert 1 < overlap() < 2.5


class Timed(list[Event]):
    """Notes when each event came."""

    def __init__(self, times: list[tuple[float, Event]]) -> None:
        super().__init__()
        self._times = times

    def append(self, event: Event) -> None:
        self._times.append((time.monotonic(), event))
        super().append(event)


def test_empty_units_link_and_need_no_executable_stack(plain: Project) -> None:
    def drop(graph: CompileGraph) -> CompileGraph:
        return graph.map(lambda unit: replace(unit, empty=unit.name != "one.cpp"))

    _, summary, _ = plain.build(drop)
    assert (summary.compiled, summary.empty) == (1, 4)
    assert b".note.GNU-stack" in plain.object("two").read_bytes()
    library = plain.folder / "all.so"
    objects = [str(plain.object(name)) for name in UNITS]
    link = subprocess.run(
        [str(CXX), "-shared", "-o", str(library), *objects], capture_output=True, text=True, check=False
    )
    assert (link.returncode, link.stderr) == (0, "")


def test_a_link_waits_for_its_objects(project: Project) -> None:
    (project.folder / "link").touch()
    code, summary, error = project.build()
    assert (code, error, summary.compiled) == (0, None, 6)
    assert summary.units[-1].output == str(project.folder / "build" / "all.so")
    assert (project.folder / "build" / "all.so").read_bytes().startswith(b"\x7fELF")
    code, summary, _ = project.build()
    assert (code, summary.compiled, summary.reused) == (0, 1, 5)


def test_two_calls_of_ninja_share_the_slots(tmp_path: Path) -> None:
    first, second = make_project(tmp_path / "first"), make_project(tmp_path / "second")
    with first.engine(slots=1) as engine:
        calls = [
            subprocess.Popen(it.command(), env=environment(engine), stdout=subprocess.DEVNULL) for it in (first, second)
        ]
        assert [call.wait(timeout=60) for call in calls] == [0, 0]
        assert (engine.summary.compiled, engine.error) == (10, None)
    jobs = [type(event) for event in first.events if isinstance(event, JobStarted | JobFinished)]
    assert jobs == [JobStarted, JobFinished] * 10


def test_the_first_error_is_reported(project: Project) -> None:
    (project.folder / "src" / "three.cpp").write_text("int three() { return nonsense; }\n")
    code, _, error = project.build()
    assert code == 1
    assert isinstance(error, BuildError)
    assert "three.cpp" in str(error) and "nonsense" in str(error)
    assert "FAILED" in project.printed and "nonsense" in project.printed
    assert "nonsense" in project.log.getvalue()
    (script,) = (project.folder / "plan").glob("rerun-*.sh")
    assert str(script) in str(error) or shlex.quote(str(script)) in str(error)
    rerun = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
    assert rerun.returncode != 0 and "nonsense" in rerun.stderr


def test_what_ran_beside_a_failure_is_kept(plain: Project) -> None:
    # Units start in upstream's order, here that of the alphabet: five and four at once, then the others.
    wrapper(plain, "case $source in five) sleep 0.5;; four) sleep 1;; esac")
    (plain.folder / "src" / "five.cpp").write_text("broken\n")
    code, _, _ = plain.build()
    assert (code, runs(plain)) == (1, {"five": 1, "four": 1})
    (plain.folder / "src" / "five.cpp").write_text("int five() { return 5; }\n")
    code, summary, _ = plain.build()
    assert (code, summary.compiled, summary.reused) == (0, 4, 1)
    assert runs(plain) == {"five": 2, "four": 1, "one": 1, "three": 1, "two": 1}


def test_a_killed_compiler_is_tried_again(plain: Project) -> None:
    wrapper(plain, 'if [ $source = four ] && mkdir "$state/killed.once" 2>/dev/null; then kill -9 $$; fi')
    code, summary, error = plain.build()
    assert (code, error, summary.compiled) == (0, None, 5)
    assert runs(plain)["four"] == 2
    (retried,) = plain.seen(JobRetried)
    assert isinstance(retried, JobRetried)
    assert retried.name == "four.cpp" and retried.reserved_bytes == 4 * 10**9


def test_a_compiler_that_is_killed_again_tells_of_memory(plain: Project) -> None:
    wrapper(plain, "if [ $source = four ]; then kill -9 $$; fi")
    code, _, error = plain.build()
    assert code == 1
    assert isinstance(error, BuildError)
    # Twice, or three times if another compiler ran beside the second one.
    assert "the compiler was killed" in error.what and "--memory" in error.hint
    assert runs(plain)["four"] in (2, 3)


def test_a_compiler_that_makes_nothing_fails(plain: Project) -> None:
    wrapper(plain, "if [ $source = two ]; then exit 0; fi")
    code, _, error = plain.build()
    assert code == 1 and isinstance(error, BuildError)
    assert "made no object" in error.what
    assert not plain.object("two").exists()


def test_a_missing_compiler_fails(plain: Project) -> None:
    plain.compiler = "no-such-compiler"
    code, _, error = plain.build()
    assert code == 1 and isinstance(error, BuildError)
    assert "no-such-compiler" in str(error)


def test_a_full_disk_is_the_machines(plain: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ObjectStore, "keep", full)
    code, _, error = plain.build()
    assert code == 1 and isinstance(error, HostError)
    assert "no space left" in error.what and str(plain.folder / "plan") in error.why


def test_a_folder_that_cannot_be_used_is_the_machines(plain: Project) -> None:
    (plain.folder / "plan").write_text("a file")
    with pytest.raises(HostError, match="can't work in its folders"):
        plain.build()


def test_what_is_our_own_fault_is_raised(plain: Project) -> None:
    def wrong(graph: CompileGraph) -> CompileGraph:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plain.build(wrong)


def test_a_missing_source_tells_of_submodules(plain: Project) -> None:
    def lose(graph: CompileGraph) -> CompileGraph:
        return graph.map(lambda unit: replace(unit, sources=("/no/such.cu",)))

    _, _, error = plain.build(lose)
    assert isinstance(error, BuildError)
    assert "/no/such.cu" in error.what and "submodule" in error.hint


def test_closing_the_engine_ends_compilers_and_keeps_objects(plain: Project) -> None:
    wrapper(plain, "case $source in five) ;; *) sleep 600;; esac")
    with plain.engine() as engine:
        upstream = subprocess.Popen(plain.command(), env=environment(engine), stdout=subprocess.DEVNULL)
        wait_until(lambda: engine.summary.compiled == 1 and len(runs(plain)) == 3)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert upstream.wait(timeout=10) != 0
    assert processes_of(plain) == []
    assert len(list((plain.folder / "plan" / "objects").glob("*.json"))) == 1


BUILD = """
import io, os, subprocess, sys
from pathlib import Path
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.measured import PEAK_MARGIN
from attnforge.compile.run.engine import Engine
folder = Path(sys.argv[1])
with Engine(folder=folder / "plan", slots=2, budget_bytes=8 * 10**9, passes=(), costs=CostModel(folder / "costs.json"),
            observe=lambda event: None, log=io.StringIO(), temporary=folder / "tmp") as engine:
    path = f"{engine.seat_folder}{os.pathsep}{os.environ['PATH']}"
    sys.exit(subprocess.run(sys.argv[2:], env={"PATH": path, "HOME": "/"}).returncode)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_leaves_nothing_running_and_resumes(project: Project, how: signal.Signals) -> None:
    wrapper(project, 'case $source in five|four) ;; *) [ -e "$state/fast.now" ] || sleep 600;; esac')
    parent = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(project.folder), *project.command()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    records = project.folder / "plan" / "objects"
    wait_until(lambda: len(list(records.glob("*.json"))) == 2 and len(runs(project)) == 4)
    parent.send_signal(how)
    parent.wait(timeout=20)
    wait_until(lambda: processes_of(project) == [])
    wait_until(lambda: list((project.folder / "tmp").iterdir()) == [])
    (project.folder / "state" / "fast.now").touch()
    code, summary, error = project.build()
    assert (code, error) == (0, None)
    assert (summary.compiled, summary.reused) == (3, 2)
    assert runs(project)["five"] == runs(project)["four"] == 1


def processes_of(project: Project) -> Sequence[str]:
    """Return the command lines of processes that belong to the project, this one and its like excepted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(project.folder) in line and int(entry.name) != os.getpid():
            found.append(line)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that another process does; a minute's half is for a machine under load."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


# --- what an object was made of


def cached(project: Project) -> Reuse:
    """A cache, and the names of the folders that compiles read of."""
    prefixes = Prefixes({str(project.folder / "src"): "source", str(project.folder / "venv"): "site-packages"})
    return Reuse(StepCache(project.folder / "cache", limit_bytes=10**8, warn=lambda text: None), prefixes)


def products(project: Project, *passes: Pass, reuse: Reuse | None) -> dict[str, Product]:
    with project.engine(*passes, reuse=reuse) as engine:
        subprocess.run(project.command(), env=environment(engine), capture_output=True, check=True)
        found = engine.products
    assert [product.output for product in found] == sorted(product.output for product in found)
    return {Path(product.output).stem: product for product in found}


def test_each_object_tells_which_folders_its_compile_read(project: Project) -> None:
    """Whether it was compiled, or lay in the plan's folder, or in the cache across plans: it is always the same."""
    header = project.folder / "venv" / "torch" / "here.h"
    header.parent.mkdir(parents=True)
    header.write_text("#include <stddef.h>\n")
    (project.folder / "src" / "two.cpp").write_text(f'#include "{header}"\nint two() {{ return 2; }}\n')
    seen = []
    for how in ("compiled", "reused", "cached"):
        found = products(project, reuse=cached(project))
        assert {product.how for product in found.values()} == {how}
        assert {product.call for product in found.values()} == {0}
        assert found["two"].sources == (str(project.folder / "src" / "two.cpp"),)
        seen.append({name: product.reads for name, product in found.items()})
        project.clean()
        if how == "reused":
            shutil.rmtree(project.folder / "plan")
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["one"] == frozenset({"source", "system"})  # every compile reads the C library's stdc-predef.h
    assert seen[0]["two"] == frozenset({"source", "site-packages", "system"})
    assert {name for name, reads in seen[0].items() if not is_neutral(reads)} == {"two"}


def test_without_a_cache_nothing_is_known_of_what_was_read(plain: Project) -> None:
    found = products(plain, reuse=None)
    assert {product.reads for product in found.values()} == {None}
    assert not any(is_neutral(product.reads) for product in found.values())


def test_what_was_left_out_is_told_apart(plain: Project) -> None:
    def without_two(graph: CompileGraph) -> CompileGraph:
        return graph.map(lambda unit: replace(unit, empty=True) if unit.name == "two.cpp" else unit)

    found = products(plain, without_two, reuse=cached(plain))
    assert {name: product.how for name, product in found.items() if product.how != "compiled"} == {"two": "empty"}
    assert found["two"].sources == (str(plain.folder / "src" / "two.cpp"),)
    assert found["two"].reads is None


def test_products_are_there_once_they_are_in_place(plain: Project) -> None:
    """A build that fails tells of what it made, and of no more."""
    (plain.folder / "src" / "two.cpp").write_text("int two() { return nothing; }\n")
    with plain.engine(reuse=cached(plain)) as engine:
        subprocess.run(plain.command(), env=environment(engine), capture_output=True, check=False)
        found = engine.products
    assert "two" not in {Path(product.output).stem for product in found}
    assert all(Path(product.output).is_file() for product in found)
