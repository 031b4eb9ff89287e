"""CMake's checks and calls of ninja from inside of a command: answered beside the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attnforge.compile.graph.ninja import parse
from attnforge.compile.run.aside import INSIDE, is_aside, run_aside, seen_inside
from attnforge.compile.run.executor import Executor
from attnforge.errors import BuildError
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Unit

SHELL = "rule r\n  command = {}\n"


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor() as running:
        yield running


def graph(folder: Path, command: str, *builds: str) -> CompileGraph:
    return parse(SHELL.format(command) + "\n".join(builds) + "\n", str(folder))


@pytest.mark.parametrize(
    ("folder", "aside"),
    [
        ("/b/CMakeFiles/CMakeScratch/TryCompile-AFaZ32", True),
        ("/b/CMakeFiles/CMakeTmp", True),
        ("/b/CMakeFiles", False),
        ("/b/CMakeScratch", False),
        ("/b", False),
    ],
)
def test_a_check_of_cmakes_is_known_by_its_folder(folder: str, aside: bool) -> None:
    found = graph(Path(folder), "x", "build o: r i")
    assert is_aside(found, {}) is aside
    assert is_aside(found, {INSIDE: "1"})


def test_what_may_call_ninja_again_is_marked_and_no_compile_is() -> None:
    for language in Language:
        unit = Unit("/b/o", (), ("x",), "/b", language)
        assert (INSIDE in seen_inside(unit, {"A": "b"})) == (language is Language.OTHER)


def test_commands_run_in_order_with_their_files(tmp_path: Path, executor: Executor) -> None:
    # Written in the other order than they need one another.
    found = graph(tmp_path, "cat $in > $out && echo made $out", "build sub/c: r b", "build b: r a")
    found = found.with_files(GeneratedFile(str(tmp_path / "a"), "text"))
    said: list[str] = []
    assert run_aside(found, {"PATH": "/usr/bin:/bin"}, executor, tmp_path / "log", said.append) == 0
    assert (tmp_path / "sub/c").read_text() == "text"
    assert "".join(said).split("\n") == ["made b", "made sub/c", ""]


def test_a_no_is_ninjas_exit_code_and_ends_it(tmp_path: Path, executor: Executor) -> None:
    found = graph(tmp_path, "echo no: $out; false", "build a: r", "build b: r a")
    said: list[str] = []
    assert run_aside(found, {"PATH": "/usr/bin:/bin"}, executor, tmp_path / "log", said.append) == 1
    assert said == ["no: a\n", f"FAILED: {tmp_path}/a"]


def test_units_that_wait_for_one_another_are_an_error(tmp_path: Path, executor: Executor) -> None:
    one, two = (Unit(f"/b/{a}", (), ("true",), "/b", Language.OTHER, needs=(f"/b/{b}",)) for a, b in ("xy", "yx"))
    with pytest.raises(BuildError, match="wait for one another"):
        run_aside(CompileGraph((one, two)), {}, executor, tmp_path / "log", print)
