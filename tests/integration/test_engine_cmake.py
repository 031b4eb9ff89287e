"""CMake's own Ninja files in the engine: checks, a link through a shell, a source that a command makes by ninja."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine
from attnforge.model.events import Event, GraphReceived, UnitFinished
from attnforge.workflow.outside import generator

CMAKE = shutil.which("cmake")

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(CMAKE is None or shutil.which("c++") is None, reason="no CMake or no C++ compiler on PATH"),
]

LISTS = """\
cmake_minimum_required(VERSION 3.18)
project(thing LANGUAGES CXX)
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("int main() { return 0; }" RIGHT)
check_cxx_source_compiles("int main() { return nothing; }" WRONG)
if(NOT RIGHT OR WRONG)
  message(FATAL_ERROR "checks: right '${RIGHT}', wrong '${WRONG}'")
endif()
add_custom_command(
  OUTPUT inner.cpp
  COMMAND ninja -C ${CMAKE_SOURCE_DIR}/inner
  COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_SOURCE_DIR}/inner/out inner.cpp)
add_library(thing SHARED one.cpp two.cpp ${CMAKE_CURRENT_BINARY_DIR}/inner.cpp)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "mit Leerzeichen"
    (folder / "inner").mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text(LISTS)
    for name in ("one", "two"):
        (folder / f"{name}.cpp").write_text(f"int {name}() {{ return 1; }}\n")
    (folder / "inner" / "build.ninja").write_text(
        "rule r\n  command = echo 'int inner() { return 1; }' > $out\nbuild out: r\n"
    )
    return folder


def test_a_project_of_cmakes_is_built_with_one_slot(tmp_path: Path, source: Path) -> None:
    """With one slot a command that waits for ninja would wait for ever, and a failed check would end the build."""
    events: list[Event] = []
    build = tmp_path / "build"
    with Engine(
        folder=tmp_path / "plan",
        slots=1,
        budget_bytes=8 * 10**9,
        passes=(),
        costs=CostModel(tmp_path / "costs.json"),
        observe=events.append,
        log=io.StringIO(),
        temporary=tmp_path / "tmp",
    ) as engine:
        environment = {
            "PATH": f"{engine.seat_folder}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            **generator("CMake"),
        }
        for arguments in (["-S", str(source), "-B", str(build)], ["--build", str(build), "-j", "2"]):
            done = subprocess.run(
                ["cmake", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
            )
            assert done.returncode == 0, done.stdout + done.stderr
        assert engine.error is None
        assert {unit.how for unit in engine.summary.units} == {"compiled"}
    assert (build / "libthing.so").is_file() and (build / "inner.cpp").read_text().startswith("int inner")
    # The checks and the inner call are no part of what is counted.
    assert [one.units for one in events if isinstance(one, GraphReceived)] == [5]
    names = sorted(one.name for one in events if isinstance(one, UnitFinished))
    assert names == ["inner.cpp", "inner.cpp", "libthing.so", "one.cpp", "two.cpp"]
