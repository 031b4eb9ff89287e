"""What a rehearsal leaves in upstream's folder, and what its failures mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from attnforge.compile.run.engine import Engine
from attnforge.errors import BuildError, WheelError
from attnforge.model.events import Event, Message, Rehearsed
from attnforge.workflow.rehearsing import Rehearsing, Tree, build_rehearsed


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project in a folder of a larger tree."""
    for path in ("README.md", "hopper/setup.py", "hopper/x.egg-info/SOURCES.txt", "hopper/src/kernel.cu"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


def write(path: Path, text: str = "new") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_setuptools_makes_is_taken_away(source: Path) -> None:
    tree, before, project = Tree.look(source, source / "hopper"), contents(source), source / "hopper"
    write(project / "build" / "temp" / "kernel.o")
    write(project / "build" / "lib" / "x" / "__init__.py")
    write(project / "dist" / "x.whl")
    write(project / "__pycache__" / "setup.pyc")
    write(project / "y.egg-info" / "PKG-INFO")
    write(project / "x.egg-info" / "SOURCES.txt", "setup.py and more")
    assert tree.restore()
    assert contents(source) == before
    # A compile may run in it.
    assert (project / "build" / "temp").is_dir()


def test_a_file_that_was_removed_comes_back(source: Path) -> None:
    tree = Tree.look(source, source / "hopper")
    (source / "hopper" / "x.egg-info" / "SOURCES.txt").unlink()
    assert tree.restore()
    assert (source / "hopper" / "x.egg-info" / "SOURCES.txt").read_text() == "hopper/x.egg-info/SOURCES.txt"


@pytest.mark.parametrize(
    "path",
    ["hopper/src/kernel.cu", "hopper/src/made.cu", "hopper/build/made.h", "build/x.o", "hopper/src/build/x.o", "new"],
)
def test_what_compiles_may_read_is_left(source: Path, path: str) -> None:
    tree = Tree.look(source, source / "hopper")
    write(source / "hopper" / "build" / "kernel.o")
    write(source / path, "another text")
    after = contents(source)
    assert not tree.restore()
    assert contents(source) == after


class Fake:
    """An engine that answers a call early, with a kernel that may fail meanwhile."""

    def __init__(self, *, rehearsed: bool = True, performed: bool = True) -> None:
        self.rehearsed, self.performed, self.error = rehearsed, performed, None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.calls.append(name)


def rehearse(
    source: Path, engine: Fake, *failures: Exception | None, check: Exception | None = None, trusted: bool = True
) -> tuple[Path, list[Event]]:
    """Run a build whose runs fail so, one after the other."""
    events: list[Event] = []
    runs = iter(failures)

    def run() -> Path:
        engine.calls.append("run")
        if failure := next(runs):
            raise failure
        return Path("it.whl")

    def look(wheel: Path) -> None:
        if check:
            raise check

    rehearsing = Rehearsing(source, look, lambda: engine.calls.append("lay out"), trusted)
    wheel = build_rehearsed(cast(Engine, engine), source / "hopper", run, rehearsing, events.append)
    return wheel, events


def test_two_runs(source: Path) -> None:
    engine = Fake()
    _, events = rehearse(source, engine, None, None)
    assert engine.calls == ["rehearse", "run", "perform", "run"]
    assert [(event.ok, event.why) for event in events if isinstance(event, Rehearsed)] == [(True, "")]


def test_one_run_where_no_call_was_answered_early(source: Path) -> None:
    engine = Fake(rehearsed=False)
    assert rehearse(source, engine, None)[1] == []
    assert engine.calls == ["rehearse", "run"]
    with pytest.raises(BuildError, match="undefined reference"):
        rehearse(source, Fake(rehearsed=False), BuildError("undefined reference to x"))


@pytest.mark.parametrize(
    ("what", "trusted", "conclusive"),
    [
        ("ld: cannot find -lcuda", True, True),
        ("ld: cannot find -lcuda", False, True),
        ("error: package directory 'x' does not exist", True, True),
        ("error: package directory 'x' does not exist", False, False),
        ("x.o: undefined reference to `run'", True, False),
        ("ImportError: x.so: undefined symbol: run", True, False),
    ],
)
def test_what_a_failure_means(source: Path, what: str, trusted: bool, conclusive: bool) -> None:
    engine = Fake()
    if conclusive:
        with pytest.raises(BuildError, match=what.split()[-1]):
            rehearse(source, engine, BuildError(what), trusted=trusted)
        assert engine.calls.count("run") == 1
        return
    wheel, events = rehearse(source, engine, BuildError(what), None, trusted=trusted)
    assert wheel == Path("it.whl")
    assert [(event.ok, event.why) for event in events if isinstance(event, Rehearsed)] == [(False, what)]


@pytest.mark.parametrize("error", [BuildError("another version"), WheelError("another tag")])
def test_a_bad_wheel_is_one_whoever_made_it(source: Path, error: Exception) -> None:
    engine = Fake()
    with pytest.raises(type(error)):
        rehearse(source, engine, None, None, check=error, trusted=False)
    assert engine.calls.count("run") == 1


def test_it_is_said_that_kernels_were_stopped(source: Path) -> None:
    events: list[Event] = []
    rehearsing = Rehearsing(source, print, print, trusted=True)

    def run() -> Path:
        raise BuildError("no luck")

    with pytest.raises(BuildError):
        build_rehearsed(cast(Engine, Fake()), source, run, rehearsing, events.append)
    assert [type(event) for event in events] == [Message]


def test_sources_that_were_written_are_laid_out_when_no_kernel_reads_them(source: Path) -> None:
    engine = Fake()
    made = source / "hopper" / "src" / "made.cu"

    def run() -> Path:
        engine.calls.append("run")
        write(made)
        return Path("it.whl")

    rehearsing = Rehearsing(source, print, lambda: engine.calls.append("lay out"), trusted=True)
    build_rehearsed(cast(Engine, engine), source / "hopper", run, rehearsing, lambda event: None)
    assert engine.calls == ["rehearse", "run", "drain", "lay out", "perform", "run"]


def test_modules_that_were_not_asked_for_again_are_not_delivered(source: Path) -> None:
    with pytest.raises(BuildError, match="did not ask for its objects again"):
        rehearse(source, Fake(performed=False), None, None)
