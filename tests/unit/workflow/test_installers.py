"""Upstream's build reaches no installer of the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from attnforge.workflow.installers import INSTALLERS, refuse_installers


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
