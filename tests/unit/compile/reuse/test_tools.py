from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.compile.reuse.tools import Tools
from attnforge.model.graph import Language, Unit
from attnforge.process import Command, Outcome
from standins.dryruns import ONE

PROGRAMS = ("nvcc", "cicc", "cudafe++", "ptxas", "fatbinary", "gcc", "cc1plus", "as")


class Machine:
    """A folder of programs that are not run: what they would answer is told here."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.asked: list[tuple[str, ...]] = []
        self.version = "gcc 12.2.0"
        self.listing = ONE.replace("/p/cuda/bin/../nvvm/bin", str(self.bin)).replace("/p/cuda/bin", str(self.bin))
        self.listing = self.listing.replace(":/usr/bin", "")
        for name in PROGRAMS:
            self.write(name, f"\x7fELF {name}")

    def write(self, name: str, content: str) -> None:
        (self.bin / name).write_text(content)
        (self.bin / name).chmod(0o755)

    def run(self, command: Command, log: object = None) -> Outcome:
        self.asked.append(command.argv)
        if "--dryrun" in command.argv:
            return Outcome(0 if self.listing else 1, self.listing)
        if command.argv[1] == "--version":
            return Outcome(0, self.version)
        name = command.argv[1].removeprefix("-print-prog-name=")
        return Outcome(0, f"{self.bin}/cc1plus\n" if name == "cc1plus" else f"{name}\n")

    def of(
        self, language: Language = Language.CUDA, tools: Tools | None = None, *options: str
    ) -> dict[str, str] | None:
        program = "nvcc" if language is Language.CUDA else "gcc"
        unit = Unit("/a.o", (), (program, "-c", *options), "/", language)
        return (tools or Tools(self.run)).of(unit, {"PATH": str(self.bin), "NVCC_CCBIN": "g++"})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_programs_of_nvcc_and_of_its_host_compiler(machine: Machine) -> None:
    found = machine.of()
    assert found is not None
    assert found.keys() == {*PROGRAMS, "c++", "version"} - {"gcc"}
    assert machine.asked[0] == ("nvcc", "--dryrun", "-x", "cu", "-c", "/dev/null", "-o", "/dev/null")


def test_the_programs_of_a_host_compiler(machine: Machine) -> None:
    found = machine.of(Language.CXX)
    assert found is not None
    assert found.keys() == {"c++", "cc1plus", "as", "version"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_counts(machine: Machine, name: str) -> None:
    before = machine.of()
    machine.write(name, "\x7fELF other")
    assert machine.of() not in (before, None)


def test_the_compilers_version_counts(machine: Machine) -> None:
    before = machine.of(Language.CXX)
    machine.version = "gcc 12.3.0"
    assert machine.of(Language.CXX) != before


def test_where_programs_lie_does_not_count(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert Machine(tmp_path / "other").of() == machine.of()


def test_each_compiler_is_asked_once(machine: Machine) -> None:
    tools = Tools(machine.run)
    first = machine.of(Language.CUDA, tools)
    asked = len(machine.asked)
    assert machine.of(Language.CUDA, tools, "-O3") == first
    assert machine.of(Language.CXX, tools) is not None
    assert len(machine.asked) == asked


@pytest.mark.parametrize("options", [("-ccbin", "clang++"), ("-ccbin=clang++",), ("--compiler-bindir", "clang++")])
def test_another_host_compiler_is_asked_for(machine: Machine, options: tuple[str, ...]) -> None:
    machine.of(Language.CUDA, None, *options)
    assert machine.asked[0][2 : 2 + len(options)] == options


def no_cc1plus(machine: Machine) -> None:
    (machine.bin / "cc1plus").unlink()


def test_a_compiler_of_one_program(machine: Machine) -> None:
    no_cc1plus(machine)
    found = machine.of(Language.CXX)
    assert found is not None
    assert "cc1plus" not in found


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda machine: machine.write("ptxas", "#!/bin/sh\n"), id="a script runs what nobody knows"),
        pytest.param(lambda machine: (machine.bin / "cicc").unlink(), id="a missing program"),
        pytest.param(lambda machine: (machine.bin / "gcc").unlink(), id="no host compiler"),
        pytest.param(lambda machine: setattr(machine, "listing", ""), id="no dry run"),
        pytest.param(lambda machine: setattr(machine, "listing", "#$ a && b"), id="an odd dry run"),
        pytest.param(lambda machine: setattr(machine, "version", ""), id="no version"),
    ],
)
def test_what_is_not_known_is_nothing(machine: Machine, change: Callable[[Machine], object]) -> None:
    change(machine)
    assert machine.of() is None


def test_other_units_have_no_known_programs(machine: Machine) -> None:
    assert machine.of(Language.OTHER) is None
    assert machine.of(Language.DEVICE_LINK) is None
