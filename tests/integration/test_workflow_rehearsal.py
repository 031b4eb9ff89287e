"""Failures that need no kernel come first: link and packaging are rehearsed while kernels compile."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from attnforge.compile.run import calls
from standins import house
from standins.forge import TARGET, Forge, wait_until

# One of them is kept for host code while a rehearsal goes on: two kernels compile at once.
SLOTS = ("--jobs", "3")

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

UNITS = {"scale.cu": 1, "shift.cu": 1, "total.cu": 1}
RUN = "import tinykernels; print(tinykernels.run(3.0))"
DIFFUSION = ("--profile", "diffusion", "--head-dims", "64")


@pytest.fixture
def source(forge: Forge) -> Path:
    return house.tinykernels(forge.folder / "tinykernels")


@pytest.fixture
def go(forge: Forge) -> Path:
    """A file that all kernels wait for, up to two minutes."""
    path = forge.folder / "go"
    forge.toolkit.order("every", wait=str(path))
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def rehearse(forge: Forge, source: Path) -> None:
    """Have the kernels wait until the first run of setup.py that builds a wheel has ended: so there is a rehearsal."""
    path = forge.folder / "rehearsed"
    forge.toolkit.order("every", wait=str(path))
    noting = f"import atexit, sys\nif 'bdist_wheel' in sys.argv:\n    atexit.register(open, {str(path)!r}, 'w')\n"
    change(source / "setup.py", "\nsetup(", f"\n{noting}\nsetup(")


class Running:
    """A build that has been started, and the events that it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []

    def until(self, kind: str) -> dict[str, Any]:
        """Read events up to the next of a kind and return that."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1].get("event") == kind:
                return self.events[-1]
        raise AssertionError(f"it ended without {kind}: {self.events[-1]}")

    def end(self) -> int:
        """Read the rest and return the exit code."""
        out, _ = self.process.communicate(timeout=100)
        self.events += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode

    def seen(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event") == kind]


def start(forge: Forge, source: Path, *arguments: str) -> Running:
    return Running(forge.start("build", source, *TARGET, "--json", *arguments))


def test_kernels_go_on_compiling_while_link_and_packaging_are_tried(forge: Forge, source: Path, go: Path) -> None:
    running = start(forge, source)
    rehearsed = running.until("Rehearsed")
    assert (rehearsed["ok"], rehearsed["why"]) == (True, "")
    # Two slots: both have a kernel, none of which has ended.
    wait_until(lambda: len(forge.toolkit.calls()) == 2)
    assert [event["name"] for event in running.seen("UnitFinished")] == ["binding.cpp"]
    go.touch()
    assert running.end() == 0
    assert forge.toolkit.calls() == UNITS
    assert forge.python(forge.install(forge.wheel()), RUN) == "50.0"
    # All is counted once, and said once.
    (graph,) = running.seen("GraphReceived")
    assert (graph["units"], graph["compile"]) == (4, 4)
    assert {event["total"] for event in running.seen("Progress")} == {4}
    report = json.loads(Path(f"{forge.wheel()}.report.json").read_text())["compile"]
    assert (report["compiled"], report["empty"], len(report["units"])) == (4, 0, 4)
    (log,) = forge.cache.glob("builds/*/log.txt")
    assert [f"[{number}/4]" in log.read_text() for number in range(1, 6)] == [True] * 4 + [False]
    assert log.read_text().count("[4/4]") == 1


def test_a_host_unit_that_does_not_compile_ends_the_kernels(forge: Forge, source: Path, go: Path) -> None:
    change(source / "csrc" / "binding.cpp", "return PyModule_Create(&module)", "return nonsense")
    done = forge.build(source)
    assert (done.code, go.exists()) == (4, False)
    assert "binding.cpp failed to compile" in done.err
    assert done.seen("UnitFinished") == [] == forge.processes()


RETAGGING = """
from setuptools.command.bdist_wheel import bdist_wheel
class Retagging(bdist_wheel):
    def get_tag(self):
        return "cp27", "cp27mu", super().get_tag()[2]
"""


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("extra_compile_args", "libraries=['nosuchlibrary'],\n extra_compile_args", 4, "-lnosuchlibrary"),
        ('"build_ext": BuildExtension', '"build_ext": BuildExtension, "bdist_wheel": Retagging', 5, "cp27"),
    ],
    ids=["a library that is not there", "another tag"],
)
def test_what_is_wrong_without_kernels(
    forge: Forge, source: Path, go: Path, old: str, new: str, code: int, said: str
) -> None:
    change(source / "setup.py", old, new)
    change(source / "setup.py", "\nsetup(", f"{RETAGGING}\nsetup(")
    done = forge.build(source)
    assert (done.code, go.exists()) == (code, False), done.err
    assert said in done.err
    assert "found while kernels compile" in done.out
    assert [event["name"] for event in done.seen("UnitFinished")] == ["binding.cpp"]
    assert forge.processes() == []


def test_another_name_that_is_as_good_is_told_early(forge: Forge, source: Path, go: Path) -> None:
    retagging = RETAGGING.replace('"cp27", "cp27mu"', 'super().get_tag()[0], "none"')
    change(source / "setup.py", '"build_ext": BuildExtension', '"build_ext": BuildExtension, "bdist_wheel": Retagging')
    change(source / "setup.py", "\nsetup(", f"{retagging}\nsetup(")
    running = start(forge, source)
    assert running.until("Rehearsed")["ok"]
    (warned,) = (event["text"] for event in running.seen("Message") if event["level"] == "warning")
    go.touch()
    assert running.end() == 0
    assert f"will be {forge.wheel().name}, and the plan says tinykernels-1.2.0" in warned


NO_PACKING = """
from setuptools.command.bdist_wheel import bdist_wheel
class Packing(bdist_wheel):
    def run(self):
        super().run()
        raise RuntimeError("the box is full")
"""


def never_packing(setup: Path) -> None:
    change(setup, '"build_ext": BuildExtension', '"build_ext": BuildExtension, "bdist_wheel": Packing')
    change(setup, "\nsetup(", f"{NO_PACKING}\nsetup(")


def test_packaging_that_fails_with_a_recipe(forge: Forge, go: Path) -> None:
    source = house.flash_attn(forge.folder / "flash-attention")
    never_packing(source / "setup.py")
    done = forge.build(source, *DIFFUSION)
    assert (done.code, go.exists()) == (4, False), done.err
    assert "the box is full" in done.err
    assert [event["name"] for event in done.seen("UnitFinished")] == ["flash_api.cpp"]


def test_packaging_that_fails_without_a_recipe(forge: Forge, source: Path) -> None:
    """Nobody knows what its setup.py looks at, so the run with all objects decides."""
    never_packing(source / "setup.py")
    rehearse(forge, source)
    done = forge.build(source)
    (rehearsed,) = done.seen("Rehearsed")
    assert not rehearsed["ok"] and "the box is full" in rehearsed["why"]
    assert done.code == 4
    assert "the box is full" in done.err
    assert forge.toolkit.calls() == UNITS


LOADING = """
import ctypes, glob, os, torch
class Loading(BuildExtension):
    def run(self):
        super().run()
        site = os.path.dirname(os.path.dirname(torch.__file__))
        for pattern in ("torch/lib/libc10.so", "nvidia/cu13/lib/libcudart.so.13"):
            ctypes.CDLL(os.path.join(site, pattern), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(os.path.abspath(self.get_ext_fullpath(self.extensions[0].name)), mode=os.RTLD_NOW)
"""


@pytest.mark.parametrize("package", ["with a recipe", "without one"])
def test_a_setup_that_needs_the_kernels_decides_when_they_are_there(forge: Forge, package: str) -> None:
    known = package == "with a recipe"
    source = (house.flash_attn if known else house.tinykernels)(forge.folder / "project")
    change(source / "setup.py", '"build_ext": BuildExtension', '"build_ext": Loading')
    change(source / "setup.py", "\nsetup(", f"{LOADING}\nsetup(")
    rehearse(forge, source)
    done = forge.build(source, *(DIFFUSION if known else ())).ok()
    (rehearsed,) = done.seen("Rehearsed")
    assert not rehearsed["ok"] and "undefined symbol" in rehearsed["why"]
    if not known:  # some of what a recipe tries, the stand-in for its package refuses
        assert forge.toolkit.calls() == UNITS


def test_a_kernel_that_fails_while_upstream_links(forge: Forge, source: Path) -> None:
    linked = forge.folder / "linked"
    change(
        source / "setup.py",
        "\nsetup(",
        "\nclass Slow(BuildExtension):\n    def run(self):\n        super().run()\n"
        f"        import time; open({str(linked)!r}, 'w').close(); time.sleep(1)\n\nsetup(",
    )
    change(source / "setup.py", '"build_ext": BuildExtension', '"build_ext": Slow')
    forge.toolkit.order("scale.cu", wait=str(linked), print="scale.cu(3): error: out of luck\n", end=2)
    forge.toolkit.order("shift.cu", wait=str(linked))
    done = forge.build(source, *SLOTS)
    assert done.code == 4
    assert done.events[-1]["error"]["what"] == "scale.cu failed to compile: scale.cu(3): error: out of luck"
    assert done.seen("Rehearsed") == []
    # What ran beside it is kept.
    assert {event["name"] for event in done.seen("UnitFinished")} >= {"binding.cpp", "shift.cu"}


def test_killed_after_the_rehearsal_nothing_is_compiled_twice(forge: Forge, source: Path, go: Path) -> None:
    forge.toolkit.order("scale.cu")
    running = start(forge, source, *SLOTS)
    running.until("Rehearsed")
    wait_until(lambda: len(forge.toolkit.calls()) == 3 and forge.objects() == 2)
    running.process.send_signal(signal.SIGKILL)
    running.end()
    wait_until(lambda: forge.processes() == [], 20)
    go.touch()
    done = forge.build(source, *SLOTS).ok()
    (graph,) = done.seen("GraphReceived")
    assert (graph["compile"], graph["reused"]) == (2, 2)
    assert forge.toolkit.calls() == {"scale.cu": 1, "shift.cu": 2, "total.cu": 2}
    assert forge.python(forge.install(forge.wheel()), RUN) == "50.0"


def test_a_rehearsal_changes_no_byte(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    source = house.flash_attn(forge.folder / "flash-attention")
    # As an sdist has it: setup.py writes into a folder that was there.
    (source / "flash_attn.egg-info").mkdir()
    (source / "flash_attn.egg-info" / "SOURCES.txt").write_text("setup.py\n")
    rehearse(forge, source)
    sdist = house.archive(source, forge.folder, "flash_attn-2.8.3")
    wheels, rehearsals = [], []
    for least in (60.0, float("inf")):
        monkeypatch.setattr(calls, "LEAST_SECONDS", least)
        out = forge.folder / f"out {least}"
        places = {"ATTNFORGE_CACHE": str(forge.folder / f"cache {least}")}
        done = forge.main("build", sdist, *TARGET, *DIFFUSION, "--json", "--out", out, **places).ok()
        wheels.append(next(out.glob("*.whl")).read_bytes())
        rehearsals.append([event["ok"] for event in done.seen("Rehearsed")])
    assert rehearsals == [[True], []]
    assert wheels[0] == wheels[1]


# A compiler works on this for seconds.
SLOW = """
constexpr long spin(long sum) { for (int i = 0; i < 200000; ++i) sum = sum * 3 % 1000003; return sum; }
static_assert(spin(1) + spin(2) + spin(3) > 0);
"""


@pytest.fixture
def runs(forge: Forge, source: Path) -> Path:
    """A file that gets a word from each run of upstream's setup.py that builds a wheel."""
    path = forge.folder / "runs"
    noting = f"import sys\nif 'bdist_wheel' in sys.argv:\n    open({str(path)!r}, 'a').write('run ')\n"
    change(source / "setup.py", "\nsetup(", f"\n{noting}\nsetup(")
    return path


def test_kernels_that_are_done_with_the_host_code_are_not_waited_for_twice(
    forge: Forge, source: Path, runs: Path
) -> None:
    binding = source / "csrc" / "binding.cpp"
    binding.write_text(binding.read_text() + SLOW)
    done = forge.build(source, *SLOTS).ok()
    assert (done.seen("Rehearsed"), runs.read_text()) == ([], "run ")
    assert forge.toolkit.calls() == UNITS
    assert forge.python(forge.install(forge.wheel()), RUN) == "50.0"


def test_what_is_stored_is_not_rehearsed(forge: Forge, source: Path, runs: Path) -> None:
    rehearse(forge, source)
    assert forge.build(source).ok().seen("Rehearsed")
    (finished,) = forge.cache.glob("builds/*/wheel")
    shutil.rmtree(finished)
    done = forge.build(source).ok()
    assert (done.seen("GraphReceived")[0]["compile"], done.seen("Rehearsed")) == (0, [])
    assert runs.read_text() == "run run run "
    assert forge.toolkit.calls() == UNITS


# --- several calls of ninja


def with_modules(source: Path, names: str, *, shared: bool) -> None:
    """Give the project a module in each of these packages; with sources of its own, or all with the same ones."""
    setup = source / "setup.py"
    for name in names:
        (source / name).mkdir()
        (source / name / "__init__.py").write_text("import torch\nfrom ._C import run\n")
        for unit in () if shared else sorted((source / "csrc").iterdir()):
            (source / name / unit.name).write_text(unit.read_text())
    folder = "csrc" if shared else "{name}"
    change(setup, "ext_modules=[", f"ext_modules=[module for name in {names!r} for module in [")
    change(setup, '"tinykernels._C"', 'f"{name}._C"')
    change(setup, '[f"csrc/{unit}"', f'[f"{folder}/{{unit}}"')
    change(setup, "        )\n    ],", "        )\n    ]],")
    change(setup, 'packages=["tinykernels"]', f"packages={list(names)!r}")


def modules_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name.split("/")[0] for name in archive.namelist() if name.endswith(".so"))


def test_all_graphs_are_known_before_the_first_kernel_is_done(forge: Forge, source: Path, go: Path) -> None:
    with_modules(source, "abcd", shared=False)
    running = start(forge, source, *SLOTS)
    running.until("Rehearsed")
    assert len(running.seen("GraphReceived")) == 4
    assert {event["name"] for event in running.seen("UnitFinished")} == {"binding.cpp"}
    go.touch()
    assert running.end() == 0
    assert len(running.seen("GraphReceived")) == 4
    assert forge.toolkit.calls() == dict.fromkeys(UNITS, 4)
    assert modules_of(forge.wheel()) == ["a", "b", "c", "d"]
    report = json.loads(Path(f"{forge.wheel()}.report.json").read_text())["compile"]
    assert report["compiled"] == 16
    python = forge.install(forge.wheel())
    assert forge.python(python, "import a, d; print(a.run(3.0), d.run(3.0))") == "50.0 50.0"


def test_modules_that_share_objects_are_answered_early_together(forge: Forge, source: Path, go: Path) -> None:
    with_modules(source, "ab", shared=True)
    running = start(forge, source)
    running.until("Rehearsed")
    # The second module's call asks for the very same, and gets the answer of the first.
    assert [graph["reused"] for graph in running.seen("GraphReceived")] == [0]
    go.touch()
    assert running.end() == 0
    # Upstream's second run makes both again: the first stands for the rehearsal's, and all of the other is there.
    assert [graph["reused"] for graph in running.seen("GraphReceived")] == [0, 4]
    assert forge.toolkit.calls() == UNITS
    assert forge.python(forge.install(forge.wheel()), "import b; print(b.run(3.0))") == "50.0"


def test_modules_that_share_objects_without_a_rehearsal(
    forge: Forge, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_modules(source, "ab", shared=True)
    monkeypatch.setattr(calls, "LEAST_SECONDS", float("inf"))
    done = forge.main("build", source, *TARGET, "--json", "--out", forge.out).ok()
    assert done.seen("Rehearsed") == []
    # The first call was answered when all was there, and the second by that.
    assert [graph["reused"] for graph in done.seen("GraphReceived")] == [0]
    assert forge.toolkit.calls() == UNITS
    assert forge.python(forge.install(forge.wheel()), "import b; print(b.run(3.0))") == "50.0"


# --- setups that do not do the same twice


def test_a_setup_that_writes_headers_is_run_again_when_no_kernel_reads_them(forge: Forge, source: Path) -> None:
    header = "import time; open('csrc/kernels.h', 'a').write('// more\\n'); time.sleep(0.1)"
    change(source / "setup.py", "\nsetup(", f"\n{header}\nsetup(")
    finished = forge.folder / "finished"
    change(
        source / "setup.py", "\nsetup(", f"\nopen({str(finished)!r}, 'a').write(open('csrc/kernels.h').read())\nsetup("
    )
    rehearse(forge, source)
    done = forge.build(source).ok()
    assert done.seen("Rehearsed")[0]["ok"]
    assert forge.toolkit.calls() == UNITS
    # The second run found upstream's own file, and not one with a line of the first.
    halves = finished.read_text()
    assert halves[: len(halves) // 2] == halves[len(halves) // 2 :]
    assert halves.count("// more") == 2


def test_a_setup_that_asks_for_something_else_the_second_time(forge: Forge, source: Path, go: Path) -> None:
    change(source / "setup.py", '"nvcc": ["-O1"]', '"nvcc": ["-O1", f"-DWHEN={__import__(\'time\').time_ns()}"]')
    running = start(forge, source)
    running.until("Rehearsed")
    # Of the first call's kernels those end that were begun; the second one asks for others.
    go.touch()
    assert running.end() == 0
    calls = forge.toolkit.calls()
    assert set(calls) == set(UNITS) and set(calls.values()) <= {1, 2}
    assert [graph["units"] for graph in running.seen("GraphReceived")] == [4, 4]
    assert running.seen("Progress") == [] or running.seen("Progress")[-1]["total"] == 4
    report = json.loads(Path(f"{forge.wheel()}.report.json").read_text())["compile"]
    assert (report["compiled"], report["reused"]) == (3, 1)
    assert forge.python(forge.install(forge.wheel()), RUN) == "50.0"
