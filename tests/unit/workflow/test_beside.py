"""Which environment a finished wheel is looked at beside."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from attnforge.errors import RequestError
from attnforge.model.host import Active, Installed
from attnforge.workflow.beside import environment_beside
from attnforge.workflow.machine import Machine

FOUND = Installed(
    python="/e/bin/python",
    version="3.12.1",
    prefix="/e",
    named_by="VIRTUAL_ENV",
    torch="2.11.0",
    calls_itself="2.11.0+cu130",
    cuda="13.0",
    folder="/e/site",
)


@dataclass
class Stand:
    """A machine of which only the active environment is asked; anything else fails."""

    active: Active


def machine(found: Installed | None = FOUND) -> Machine:
    return cast("Machine", Stand(Active(installed=found)))


def wheel(folder: Path, tag: str = "cp312-cp312", requires: str = "torch==2.11.*") -> Path:
    path = folder / f"it-1.0-{tag}-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("it-1.0.dist-info/METADATA", f"Name: it\nVersion: 1.0\nRequires-Dist: {requires}\n\n")
    return path


def beside(wheels: list[Path], python: str = "", torch: str = "", **changes: Any) -> tuple[Installed | None, list[str]]:
    told: list[str] = []
    return environment_beside(machine(**changes), wheels, python, torch, told.append), told


def test_a_wheel_for_its_pytorch_is_looked_at_there(tmp_path: Path) -> None:
    assert beside([wheel(tmp_path)]) == (FOUND, ["with PyTorch 2.11.0+cu130 of /e (VIRTUAL_ENV)"])


@pytest.mark.parametrize(
    ("tag", "requires", "why"),
    [
        ("cp311-cp311", "torch==2.11.*", "is not for Python 3.12"),
        ("cp312-cp312", "torch==2.12.*", "asks for torch==2.12.*"),
        ("cp312-cp312", "torch==2.11.0a0+git1", "asks for torch==2.11.0a0+git1"),
    ],
)
def test_a_wheel_for_another_is_not_and_that_is_told(tmp_path: Path, tag: str, requires: str, why: str) -> None:
    (tmp_path / "other").mkdir()
    found, (line,) = beside([wheel(tmp_path), wheel(tmp_path / "other", tag, requires)])
    assert found is None
    assert line.startswith("not with PyTorch 2.11.0+cu130 of /e (VIRTUAL_ENV): ") and line.endswith(why)


def test_a_wheel_of_the_stable_abi_serves_later_pythons_and_pytorch(tmp_path: Path) -> None:
    assert beside([wheel(tmp_path, "cp39-abi3", "torch>=2.9")])[0] is FOUND


def test_installed_takes_it_whatever_the_wheel_asks_for(tmp_path: Path) -> None:
    found, told = beside([wheel(tmp_path, "cp311-cp311")], torch="installed")
    assert found is FOUND and len(told) == 1


def test_what_is_named_is_taken_and_nothing_is_asked(tmp_path: Path) -> None:
    nobody = cast("Machine", object())
    for named in ({"python": "/x", "torch": ""}, {"python": "", "torch": "2.11.0"}):
        assert environment_beside(nobody, [wheel(tmp_path)], **named, tell=str) is None


def test_without_an_active_environment_there_is_none(tmp_path: Path) -> None:
    assert beside([wheel(tmp_path)], found=None) == (None, [])
    with pytest.raises(RequestError, match="no environment with a PyTorch for CUDA is active"):
        beside([wheel(tmp_path)], torch="installed", found=None)
    with pytest.raises(RequestError, match="name two environments"):
        beside([wheel(tmp_path)], python="/x", torch="installed")
