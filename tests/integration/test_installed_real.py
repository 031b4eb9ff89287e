"""Builds against a PyTorch that is installed already: without a network, and nothing in its environment changes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from attnforge.model.audit import AuditReport
from standins import house
from standins.forge import PYTHON, Done, Forge

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

TARGET = ("--gpu", "H100", "--toolchain", "system", "--jobs", "2", "--json")
RUN = "import tinykernels; print(tinykernels.run(3.0))"
ANSWER = "50.0"
BROKEN = "raise ImportError('the build has to see its own setuptools, and not this one')\n"


@pytest.fixture(scope="module")
def alone() -> Sequence[str]:
    """Words before a command that run it in a network namespace of its own, where there is no network at all."""
    words = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        done = subprocess.run([*words, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode:
        pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
    return words


@pytest.fixture
def folder(forge: Forge) -> Path:
    """A folder of wheels without a PyTorch, and with the source archive of a project.

    One of its build requirements asks for a PyTorch: the one that is installed has to do.
    """
    made = forge.folder / "archives"
    made.mkdir()
    for wheel in forge.wheels.iterdir():
        if not wheel.name.startswith("torch-"):
            (made / wheel.name).hardlink_to(wheel)
    house.write_wheel(made, "helper", "1.0", "py3-none-any", {}, requires=["torch>=2"])
    project = house.tinykernels(forge.folder / "project")
    toml = project / "pyproject.toml"
    toml.write_text(toml.read_text().replace('["setuptools", "torch"]', '["setuptools", "torch", "helper==1.0"]'))
    house.archive(project, made, "tinykernels-1.2.0")
    return made


def environment(forge: Forge, wheels: Path, version: str = house.TORCH) -> Path:
    """Make an environment with a stand-in PyTorch and a setuptools that no build could use; return its folder."""
    from uv import find_uv_bin

    prefix = forge.folder / f"env-{version}"
    base = str(Path(sys.executable).resolve())
    subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", base, prefix], env=forge.environ(), check=True)
    where = ["--no-index", "--no-deps", "--find-links", str(wheels), "--python", str(prefix), "--link-mode", "copy"]
    command = [find_uv_bin(), "pip", "install", "--quiet", *where, f"torch=={version}"]
    subprocess.run(command, env=forge.environ(), check=True)
    broken = site_of(prefix) / "setuptools"
    broken.mkdir()
    (broken / "__init__.py").write_text(BROKEN)
    return prefix


def site_of(prefix: Path) -> Path:
    return prefix / "lib" / f"python{PYTHON}" / "site-packages"


def state(prefix: Path) -> dict[str, tuple[object, ...]]:
    """Return all that can be told of the files in a folder: mode, time of change, content, where links lead."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted((prefix, *prefix.rglob("*"))):
        about = path.lstat()
        if path.is_symlink():
            content = str(path.readlink())
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (about.st_mode, about.st_mtime_ns, content)
    return found


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name).decode()


def build(forge: Forge, folder: Path, alone: Sequence[str], *arguments: str, **changes: str) -> Done:
    return forge.run(
        "build", "tinykernels==1.2.0", *TARGET, *arguments, prefix=alone, PIP_FIND_LINKS=str(folder), **changes
    )


def test_the_active_environment_without_a_network_becomes_a_wheel(
    forge: Forge, folder: Path, alone: Sequence[str]
) -> None:
    prefix = environment(forge, forge.wheels)
    before = state(prefix)
    done = build(forge, folder, alone, VIRTUAL_ENV=str(prefix)).ok()
    assert state(prefix) == before

    (planned,), (audited,) = done.seen("Planned"), done.seen("Audited")
    assert planned["environment"] == f"PyTorch 2.11.0+cu130 of {prefix} (VIRTUAL_ENV)"
    assert planned["installed"]["official"] is True
    assert str(forge.folder) not in json.dumps(planned["installed"])
    assert audited["verdict"] == "good"
    assert any(finding["code"] == "symbols" for finding in audited["findings"])
    wheel = forge.wheel()
    assert wheel.name.startswith(f"tinykernels-1.2.0+cu130torch2.11.sm90-cp{PYTHON.replace('.', '')}-")
    assert "\nRequires-Dist: torch==2.11.*\n" in metadata(wheel)
    report = json.loads(Path(f"{wheel}.report.json").read_text())
    assert {"torch==2.11.0", "helper==1.0"} <= set(report["environment"])
    # The only other PyTorch would be in the environment that was made for the build.
    assert list(forge.cache.glob("environments/*/venv/lib/*/site-packages/torch")) == []
    assert forge.python(forge.install(wheel), RUN) == ANSWER


def test_a_pytorch_that_is_built_from_source_is_required_exactly(
    forge: Forge, folder: Path, alone: Sequence[str]
) -> None:
    prefix = environment(forge, forge.wheels)
    site = site_of(prefix)
    (site / "torch" / "version.py").write_text("__version__ = '2.11.0a0+git1234'\ncuda = '13.0'\n")
    shutil.rmtree(site / "torch-2.11.0.dist-info")
    # Such a build has CUDA from the system and no package beside it.
    cuda = forge.folder / "opt" / "cuda-13.0" / "lib64"
    cuda.parent.mkdir(parents=True)
    (site / "nvidia" / "cu13" / "lib").rename(cuda)
    shutil.rmtree(site / "nvidia")
    init = site / "torch" / "__init__.py"
    init.write_text(init.read_text().replace('_HERE.parent.glob("nvidia/*/lib/', f'Path("{cuda}").glob("'))
    before = state(prefix)
    done = build(forge, folder, alone, "--env", str(prefix)).ok()
    assert state(prefix) == before
    wheel = forge.wheel()
    assert "+cu130torch2.11.0a0.git1234.unofficial.sm90-" in wheel.name
    assert "\nRequires-Dist: torch==2.11.0a0+git1234\n" in metadata(wheel)
    (audited,) = done.seen("Audited")
    assert (audited["verdict"], "libcudart.so.13" in audited["modules"][0]["needed"]) == ("good", True)
    first = done.seen("Planned")[0]["digest"]

    # Another build of the same version is another plan.
    header = site / "torch" / "include" / "torch" / "minor.h"
    header.write_text(header.read_text() + "// configured in another way\n")
    plan = forge.run("plan", "tinykernels==1.2.0", *TARGET, "--env", str(prefix), PIP_FIND_LINKS=str(folder)).ok()
    assert json.loads(plan.out)["digest"] != first


def test_a_finished_wheel_is_looked_at_beside_the_active_environment(
    forge: Forge, folder: Path, alone: Sequence[str]
) -> None:
    prefix = environment(forge, forge.wheels)
    build(forge, folder, alone, "--torch", "installed", VIRTUAL_ENV=str(prefix)).ok()
    wheel, before = forge.wheel(), state(prefix)
    told = f"with PyTorch 2.11.0+cu130 of {prefix} (VIRTUAL_ENV)"
    audited = forge.run("audit", wheel, prefix=alone, VIRTUAL_ENV=str(prefix)).ok()
    assert told in audited.out.splitlines()
    checked = forge.run("check", wheel, prefix=alone, VIRTUAL_ENV=str(prefix))
    assert (checked.code, told in checked.out.splitlines()) == (6, True)
    assert "checked with" in checked.out
    report = AuditReport.model_validate_json(
        forge.run("audit", wheel, "--env", prefix, "--json", prefix=alone).ok().out
    )
    assert report.verdict == "good"
    assert state(prefix) == before


def test_an_environment_that_a_wheel_is_not_for_is_passed_over_with_the_reason(
    forge: Forge, folder: Path, alone: Sequence[str], wheels_of_pairs: Path
) -> None:
    other = environment(forge, wheels_of_pairs, "2.12.1")
    forge.run(
        "build", "tinykernels==1.2.0", *TARGET, "--torch", "2.11.0", PIP_FIND_LINKS=f"{folder} {forge.wheels}"
    ).ok()
    done = forge.run("audit", forge.wheel(), VIRTUAL_ENV=str(other)).ok()
    assert f"not with PyTorch 2.12.1+cu130 of {other} (VIRTUAL_ENV): " in done.out
    assert "asks for torch==2.11.*" in done.out


def test_a_universal_wheel_gets_the_pytorch_of_an_environment(
    forge: Forge, folder: Path, alone: Sequence[str], wheels_of_pairs: Path
) -> None:
    first, second = environment(forge, forge.wheels), environment(forge, wheels_of_pairs, "2.12.1")
    before = state(first), state(second)
    build(forge, folder, alone, "--universal", "--env", str(first)).ok()
    wheel = forge.wheel()
    extend = ("extend", wheel, "--env", second, "--toolchain", "system", "--json", "--out", forge.folder / "more")
    done = forge.run(*extend, prefix=alone, PIP_FIND_LINKS=str(folder)).ok()
    assert done.seen("Audited")[0]["verdict"] == "good"
    (more,) = (forge.folder / "more").glob("*.whl")
    assert f"+cu130torch2.11to2.12.py{PYTHON}.sm90-" in more.name
    assert (state(first), state(second)) == before
    again = forge.run(*extend[:1], more, *extend[2:], prefix=alone)
    assert (again.code, "has PyTorch 2.12" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "init", "code", "said"),
    [
        ("__version__ = '2.11.0+cpu'\ncuda = None\n", None, 2, "is built without CUDA"),
        ("__version__ = '2.11.0+rocm6.4'\ncuda = None\nhip = '6.4.1'\n", None, 2, "AMD GPUs (ROCm 6.4.1)"),
        (None, "raise ImportError('libcudnn.so.9: cannot open shared object file')\n", 3, "libcudnn.so.9"),
    ],
)
def test_a_pytorch_that_can_not_be_built_for_is_said_before_anything_is_done(
    forge: Forge, folder: Path, text: str | None, init: str | None, code: int, said: str
) -> None:
    prefix = environment(forge, forge.wheels)
    torch = site_of(prefix) / "torch"
    if text:
        (torch / "version.py").write_text(text)
    if init:
        (torch / "__init__.py").write_text(init)
    done = forge.run("build", "tinykernels==1.2.0", *TARGET, "--env", str(prefix), PIP_FIND_LINKS=str(folder))
    assert done.code == code
    assert said in done.err and f"{prefix} (--env)" in done.err
    assert not list(forge.cache.glob("builds/*"))
