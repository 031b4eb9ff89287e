"""What is built is what was planned: a source on this machine that changes in between is refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.errors import BuildError
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.workflow import machine as machines
from attnforge.workflow.building import build
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan

SETUP = "from setuptools import setup\nsetup(name='small', version='1.0')\n"


def archive(path: Path, text: str) -> None:
    with tarfile.open(path, "w:gz") as bundle:
        info = tarfile.TarInfo("small-1.0/setup.py")
        info.size = len(text)
        bundle.addfile(info, io.BytesIO(text.encode()))


def folder(path: Path, text: str) -> None:
    path.mkdir(exist_ok=True)
    (path / "setup.py").write_text(text)


@pytest.mark.parametrize(("name", "write"), [("small-1.0.tar.gz", archive), ("small", folder)])
def test_a_source_that_changes_after_it_was_planned_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    make_host: Callable[..., Host],
    tmp_path: Path,
    name: str,
    write: Callable[[Path, str], None],
) -> None:
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    machine = Machine({"ATTNFORGE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)})
    write(tmp_path / name, SETUP)
    planned = plan(machine, Request(package=str(tmp_path / name), gpus=("H100",)))
    write(tmp_path / name, SETUP + "# another\n")
    with pytest.raises(BuildError, match="changed after it was planned"):
        build(machine, planned, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()
