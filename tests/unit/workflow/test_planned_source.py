"""What is built is what was planned: a source on this machine that changes in between is refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from attnforge.errors import BuildError, RequestError
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.provision.indexes import Offered, SdistRelease
from attnforge.recipes.catalogue import UNKNOWN_REQUIREMENTS
from attnforge.workflow import machine as machines
from attnforge.workflow import planning
from attnforge.workflow.building import build
from attnforge.workflow.layout import without_conflicts
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan
from attnforge.workflow.sources import index
from attnforge.workflow.sources.inspection import Inspected

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


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """A machine whose package index would have to be asked, and can't be."""
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    return Machine({"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "UV_NO_CONFIG": "1"})


def test_a_source_in_the_archive_of_another_package_plans_without_a_network(offline: Machine) -> None:
    pin = plan(offline, Request(package="flash-attn-3", gpus=("H100",))).plan.source
    assert (pin.kind, pin.name) == ("sdist", "xformers-0.0.35.dev1117.tar.gz")
    assert pin.carrier is not None
    assert pin.sha256 == pin.carrier.sha256
    assert pin.subdirectory == "third_party/flash-attention/hopper"


@pytest.mark.parametrize(
    ("package", "source", "said", "hint"),
    [
        # Whoever takes that name on the index must not be built in its place.
        ("flash-attn-3", "sdist", "flash-attn-3 has no source of the kind sdist", "--source carrier"),
        ("flashattn-hopper", "sdist", "flashattn-hopper has no source of the kind sdist", "--source git"),
        ("flash-attn", "carrier", "flash-attn has no source of the kind carrier", "--source sdist"),
        ("flash-attn-3==3.0.1", "", "no source archive is known that holds flash-attn-3 3.0.1", "--source git"),
    ],
)
def test_a_source_is_taken_where_the_recipe_says_and_nowhere_else(
    offline: Machine, package: str, source: str, said: str, hint: str
) -> None:
    with pytest.raises(RequestError) as caught:
        plan(offline, Request(package=package, source=source, gpus=("H100",)))
    assert said in caught.value.what
    assert hint in caught.value.hint


def test_every_python_of_a_universal_wheel_has_to_suit_the_source(
    offline: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = SdistRelease("1.0", "some-extension-1.0.tar.gz", "", "a" * 64, ">=3.11", yanked=False)
    monkeypatch.setattr(index, "offered", lambda *_: Offered((release,), "1.0"))
    monkeypatch.setattr(planning, "inspect_source", lambda *_: Inspected())  # its archive is nowhere
    request = Request(package="some-extension", gpus=("H100",), universal=True, python="3.11-3.12")
    assert len(plan(offline, request).plan.pairs) == 2
    with pytest.raises(RequestError, match=r"needs Python >=3\.11, the target has 3\.10"):
        plan(offline, request.model_copy(update={"python": "3.10-3.12"}))
    with pytest.raises(RequestError, match=r"--python 3\.10-3\.12 names several"):
        plan(offline, request.model_copy(update={"python": "3.10-3.12", "universal": False}))


@pytest.mark.parametrize(
    ("wanted", "newest", "warned"),
    [("", "2.0", True), ("", "1.0", False), ("", "", False), ("", "0.9", False), ("==1.0", "2.0", False)],
)
def test_an_older_version_than_the_newest_is_not_taken_in_silence(
    offline: Machine, monkeypatch: pytest.MonkeyPatch, wanted: str, newest: str, warned: bool
) -> None:
    """The plan is of what the index has a source of, which may be years old (bitsandbytes, exllamav2)."""
    release = SdistRelease("1.0", "some-extension-1.0.tar.gz", "", "a" * 64, "", yanked=False)
    monkeypatch.setattr(index, "offered", lambda *_: Offered((release,), newest))
    monkeypatch.setattr(planning, "inspect_source", lambda *_: Inspected())
    said = plan(offline, Request(package=f"some-extension{wanted}", gpus=("H100",))).resolution.warnings
    assert [one.hint for one in said] == (
        ["with its source in a folder: attnforge build some-extension==2.0 --source ./FOLDER"] if warned else []
    )
    assert all("1.0 is the newest" in one.message and "2.0, has only wheels" in one.message for one in said)


def test_the_plan_says_that_cmake_compiles(offline: Machine, tmp_path: Path) -> None:
    """F4: before a build is begun; natten and vllm call it so."""
    call = "import subprocess\nsubprocess.run(['cmake', '.'] + OPTIONS)\n"
    folder(tmp_path / "it", call + SETUP.replace("version", "ext_modules=[], version"))
    (said,) = plan(offline, Request(package=str(tmp_path / "it"), gpus=("H100",))).resolution.warnings
    assert "compiles with CMake" in said.message and "no memory limit" in said.message


def test_the_plan_says_that_the_source_holds_compiled_code(offline: Machine, tmp_path: Path) -> None:
    """F2: bitsandbytes 0.42.0 packs libraries that lie in its source, and was planned as pure Python."""
    folder(tmp_path / "it", SETUP)
    for name in ("libsmall_cuda120.so", "libsmall_cpu.so"):
        (tmp_path / "it" / name).write_bytes(b"\x7fELF")
    found = plan(offline, Request(package=str(tmp_path / "it"), gpus=("H100",)))
    (said,) = found.resolution.warnings
    assert "compiled code already: libsmall_cpu.so and 1 others" in said.message
    assert found.plan.is_compiled and found.plan.wheel.endswith("linux_x86_64.whl")


@pytest.mark.parametrize(
    ("asked", "torch", "warned"),
    [("torch==2.14.0", "2.11.0", True), ("torch>=2.10", "2.11.0", False), ("torch<2.12", "2.11.0,2.12.1", True)],
)
def test_the_plan_says_that_the_source_asks_for_another_pytorch(
    offline: Machine, tmp_path: Path, asked: str, torch: str, warned: bool
) -> None:
    """F11: upstream's own bound; vllm and megablocks have one. It is said before hours of compiling, not after."""
    folder(tmp_path / "it", SETUP.replace("version", "ext_modules=[], version"))
    (tmp_path / "it" / "pyproject.toml").write_text(f'[build-system]\nrequires = ["setuptools", "{asked}"]\n')
    request = Request(package=str(tmp_path / "it"), gpus=("H100",), torch=torch, universal="," in torch)
    said = plan(offline, request).resolution.warnings
    assert [one.subject for one in said] == (["torch"] if warned else [])
    last = torch.split(",")[-1]
    assert all(f"asks for {asked}, and the target has PyTorch {last}:" in one.message for one in said)


@pytest.mark.parametrize(
    ("own", "left"),
    [
        ((), {"setuptools", "wheel", "packaging", "ninja", "numpy"}),
        (("setuptools>=64", "torch"), {"setuptools", "wheel", "packaging", "ninja", "numpy"}),
        (("Setuptools>=84.2.1,<85",), {"wheel", "packaging", "ninja", "numpy"}),  # gptqmodel 7.7.0
        (("setuptools<79", "ninja>=1.14"), {"wheel", "packaging", "numpy"}),
        (("setuptools>=99; sys_platform == 'win32'",), {"setuptools", "wheel", "packaging", "ninja", "numpy"}),
        # A marker that makes no sense: an error of packaging's, which ended attnforge.
        (("setuptools>=99; os_name ~= 'x'",), {"setuptools", "wheel", "packaging", "ninja", "numpy"}),
    ],
)
def test_pins_of_ours_give_way_to_what_the_source_asks_for(own: tuple[str, ...], left: set[str]) -> None:
    assert {Requirement(one).name for one in without_conflicts(UNKNOWN_REQUIREMENTS, own)} == left


def test_pins_of_a_recipe_do_not_give_way() -> None:
    assert without_conflicts(("setuptools==70.0",), ("setuptools>=80",)) == ("setuptools==70.0",)


def test_a_version_of_wheels_alone_is_not_called_missing(offline: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    release = SdistRelease("1.0", "some-extension-1.0.tar.gz", "", "a" * 64, "", yanked=False)
    monkeypatch.setattr(index, "offered", lambda *_: Offered((release,), "2.0", frozenset(["2.0", "1.0"])))
    with pytest.raises(RequestError, match=r"2 has wheels on the package index but no source archive") as caught:
        plan(offline, Request(package="some-extension==2", gpus=("H100",)))
    assert "--source ./FOLDER" in caught.value.hint and "some-extension==1.0" in caught.value.hint
    with pytest.raises(RequestError, match=r"there is no some-extension 3 "):
        plan(offline, Request(package="some-extension==3", gpus=("H100",)))
