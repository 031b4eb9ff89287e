from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from attnforge.compile.graph import ninja
from attnforge.compile.graph.statements import NINJA_VERSION
from attnforge.compile.seat import seat
from attnforge.compile.seat.seat import Options, Usage
from attnforge.compile.seat.server import FirstError, Say, Server, write_seat
from attnforge.errors import BuildError
from attnforge.model.graph import CompileGraph

GRAPH = "rule r\n  command = run $in $out\nbuild a: r x\nbuild b: r a\nbuild c: r y\n"


def options(*arguments: str) -> dict[str, object]:
    return {key: value for key, value in vars(Options(list(arguments))).items() if value}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"file": "build.ninja"}),
        (["-v", "-j", "4"], {"file": "build.ninja"}),
        (["-v", "-j4", "-k", "0", "-l2.5", "-d", "stats", "-w", "dupbuild=err", "--quiet"], {"file": "build.ninja"}),
        (["-C", "sub", "-f", "x.ninja"], {"file": "x.ninja", "folder": "sub"}),
        (["-Csub", "-fx.ninja"], {"file": "x.ninja", "folder": "sub"}),
        (["-n", "a", "b"], {"file": "build.ninja", "dry_run": True, "targets": ["a", "b"]}),
        (["a", "--", "-b"], {"file": "build.ninja", "targets": ["a", "-b"]}),
    ],
)
def test_command_lines_of_ninja(arguments: list[str], expected: dict[str, object]) -> None:
    assert options(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, "1.13.0"),
        (["-v", "--version"], 0, "1.13.0"),
        (["--help"], 0, "usage"),
        (["-t", "clean"], 1, "no tool clean"),
        (["-tcompdb"], 1, "no tool compdb"),
        (["-t"], 1, "no tool"),
        (["-C", "b", "-t", "recompact"], 0, "^$"),  # CMake does so after it has written its files
        (["-trestat", "build.ninja"], 0, "^$"),
        (["-j"], 1, "needs a value"),
        (["--colour"], 1, "unknown option --colour"),
        (["-z"], 1, "unknown option -z"),
    ],
)
def test_what_is_answered_at_once(arguments: list[str], code: int, says: str) -> None:
    with pytest.raises(Usage, match=says) as caught:
        Options(arguments)
    assert caught.value.code == code


def test_the_seat_states_the_version_that_is_read() -> None:
    assert seat.VERSION == NINJA_VERSION


class Handler:
    """Records what it is given and answers as it is told."""

    def __init__(self) -> None:
        self.graphs: list[CompileGraph] = []
        self.environments: list[Mapping[str, str]] = []
        self.code = 0
        self.error: BaseException | None = None
        self.barrier: threading.Barrier | None = None

    def __call__(self, graph: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        self.graphs.append(graph)
        self.environments.append(environment)
        if self.barrier is not None:
            self.barrier.wait(timeout=20)
        say("[1/1] eins – zwei\nthree")
        if self.error is not None:
            raise self.error
        return self.code


class Place:
    """A folder with a build.ninja, a server and a seat. Its path is longer than a socket's address may be."""

    def __init__(self, folder: Path, handler: Handler) -> None:
        self.handler = handler
        self.build = folder / "b"
        self.build.mkdir()
        (self.build / "build.ninja").write_text(GRAPH)
        deep = folder / ("ein 'langer' Ördner " * 5) / "$x"
        deep.mkdir(parents=True)
        self.server = Server(deep / "socket", handler, FirstError())
        self.program = write_seat(deep, sys.executable, deep / "socket")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.program, *arguments],
            cwd=self.build,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def ninja(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=20)
        return process.returncode, output.decode()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def place(tmp_path: Path, handler: Handler) -> Iterator[Place]:
    place = Place(tmp_path, handler)
    with place.server:
        yield place


def test_a_graph_arrives_and_the_answer_comes_back(place: Place) -> None:
    assert place.ninja("-v", "-j", "2", NVCC_APPEND_FLAGS="-Xptxas=-v") == (0, "[1/1] eins – zwei\nthree\n")
    (graph,) = place.handler.graphs
    assert graph == ninja.parse(GRAPH, str(place.build))
    assert place.handler.environments[0]["NVCC_APPEND_FLAGS"] == "-Xptxas=-v"


def test_the_seat_ignores_the_pythons_of_upstream(place: Place, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('wrong json')")
    code, _ = place.ninja(PYTHONPATH=str(tmp_path), PYTHONHOME="/nowhere", LC_ALL="C")
    assert code == 0


def test_the_exit_code_comes_back(place: Place) -> None:
    place.handler.code = 3
    assert place.ninja()[0] == 3


def test_targets_and_folder_reach_the_parser(place: Place) -> None:
    other = place.build / "other"
    other.mkdir()
    (other / "x.ninja").write_text(GRAPH)
    assert place.ninja("-C", "other", "-f", "x.ninja", "b")[0] == 0
    assert [unit.output for unit in place.handler.graphs[0].units] == [f"{other}/a", f"{other}/b"]


def test_a_dry_run_prints_commands_and_runs_none(place: Place) -> None:
    assert place.ninja("-n", "b") == (0, "[1/2] run x a\n[2/2] run a b\n")
    assert place.handler.graphs == []


def test_the_first_error_is_kept(place: Place) -> None:
    place.handler.error = BuildError("the real cause", hint="mend it")
    code, output = place.ninja()
    assert code == 1 and "the real cause" in output and "mend it" in output
    place.handler.error = BuildError("a later one")
    place.ninja()
    assert isinstance(place.server.errors.error, BuildError) and place.server.errors.error.what == "the real cause"


def test_a_graph_that_cannot_be_read_is_an_error(place: Place) -> None:
    (place.build / "build.ninja").write_text("dyndep p\n")
    code, output = place.ninja()
    assert code == 1 and "line 1: 'dyndep'" in output
    assert isinstance(place.server.errors.error, BuildError)


def test_a_missing_file_is_an_error(place: Place) -> None:
    code, output = place.ninja("-f", "none.ninja")
    assert code == 1 and "none.ninja" in output


def test_calls_are_served_at_the_same_time(place: Place) -> None:
    place.handler.barrier = threading.Barrier(3)
    calls = [place.start() for _ in range(3)]
    assert [call.communicate(timeout=20)[0] for call in calls] == ["[1/1] eins – zwei\nthree\n".encode()] * 3


def test_a_seat_that_is_killed_does_no_harm(place: Place) -> None:
    place.handler.barrier = threading.Barrier(2)
    call = place.start()
    while not place.handler.graphs:
        assert call.poll() is None
    call.kill()
    call.communicate()
    place.handler.barrier.wait(timeout=20)
    place.handler.barrier = None
    assert place.ninja()[0] == 0
    assert place.server.errors.error is None


def test_a_seat_that_ends_before_it_asks_does_no_harm(place: Place) -> None:
    for said in (b"", b'{"cwd": "/'):
        with socket.socket(socket.AF_UNIX) as connection:
            where, descriptor = seat.address(str(place.program.with_name("socket")))
            connection.connect(where)
            os.close(descriptor)
            connection.sendall(said)
    assert place.ninja()[0] == 0
    assert place.server.errors.error is None


def test_without_a_server_the_seat_says_so(place: Place) -> None:
    place.server.close()
    code, output = place.ninja()
    assert code == 1 and "can't be reached" in output


def test_the_seat_uses_the_standard_library_alone() -> None:
    code = "import sys, json; exec(open(sys.argv[1]).read(), {'__name__': 'seat'}); print(json.dumps([*sys.modules]))"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, seat.__file__], capture_output=True, text=True, check=True
    )
    names = {name.split(".")[0] for name in json.loads(result.stdout)}
    assert names <= sys.stdlib_module_names | {"__main__"}
