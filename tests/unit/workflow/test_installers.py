"""Upstream's build reaches no installer of the machine, and no ninja when its seat is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from attnforge.compile.seat.seat import VERSION
from attnforge.workflow.installers import INSTALLERS, refuse_installers, refuse_ninja


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.pathsep.join((str(refuse_installers(tmp_path / "programs")), "/usr/bin", "/bin"))}


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", '"$@"', "sh", *words], env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("name", INSTALLERS)
def test_an_installer_refuses_and_says_why(environ: dict[str, str], name: str) -> None:
    done = run(environ, name, "install", "it's ; touch x")
    assert done.returncode == 1
    assert f"error: {name} install it's ; touch x: attnforge lets no setup.py" in done.stderr


@pytest.mark.parametrize("words", [("uninstall", "it", "-y"), ("-q", "uninstall", "-y", "it"), ("pip", "uninstall")])
def test_to_uninstall_is_no_error_and_does_nothing(environ: dict[str, str], words: tuple[str, ...]) -> None:
    done = run(environ, "pip", *words)
    assert (done.returncode, done.stdout) == (0, "")
    assert "uninstalls nothing" in done.stderr


def test_programs_are_written_again_without_harm(tmp_path: Path) -> None:
    refuse_installers(tmp_path)
    assert {path.name for path in refuse_installers(tmp_path).iterdir()} == set(INSTALLERS)


def test_a_ninja_that_is_not_the_seat_compiles_nothing(tmp_path: Path) -> None:
    environ = {"PATH": os.pathsep.join((str(refuse_ninja(tmp_path / "programs")), "/usr/bin", "/bin"))}
    asked = run(environ, "ninja", "--version")
    assert (asked.returncode, asked.stdout) == (0, f"{VERSION}\n")
    done = run(environ, "ninja", "-v")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has ended: nothing is compiled" in done.stderr
