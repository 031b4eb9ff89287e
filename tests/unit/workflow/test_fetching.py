"""What a plan says is fetched, and what is in the cache already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnforge.knowledge.toolchains import pypi_toolchain
from attnforge.model.plan import BuildPlan, SourcePin, TorchPin
from attnforge.paths import Folders
from attnforge.provision.gittree import _entry as checkout_entry
from attnforge.provision.redist import _name as release_name
from attnforge.provision.store import provide
from attnforge.provision.toolchain import _digest as packages_name
from attnforge.workflow.fetching import fetches_of

Make = Callable[..., BuildPlan]
CUDA_12 = {"torch": "2.7.1", "python": "3.11"}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path).ensure()


def said(plan: BuildPlan, folders: Folders, **options: str) -> dict[str, tuple[str, int]]:
    return {fetch.what: (fetch.where, fetch.size) for fetch in fetches_of(plan, folders, **options)}


def environment(folders: Folders, python: str, *freeze: str) -> None:
    facts = {"freeze": freeze, "site_packages": f"/x/venv/lib/python{python}/site-packages"}
    provide(folders.environments / f"{python}-{freeze[0]}", lambda _: facts)


def test_all_of_an_empty_cache(make_plan: Make, folders: Folders) -> None:
    plan = make_plan(**CUDA_12, cuda="12.8")
    pin = SourcePin(kind="git", name="x", url="https://h/x", commit="a" * 40, submodules=("csrc/cutlass",))
    assert said(plan.model_copy(update={"source": pin}), folders) == {
        "commit aaaaaaaaaaaa of x with csrc/cutlass": ("https://h/x", 0),
        "PyTorch 2.7.1 with CUDA 12.8, and what it requires": ("https://download.pytorch.org/whl/cu128", 3_917_000_000),
        "CUDA 12.8.2 (cuda_nvcc, cuda_cudart, cuda_cccl)": ("NVIDIA", 81_298_228),
    }
    of_index = make_plan()
    pin = SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="1e71dd64" + of_index.source.sha256[8:])
    assert said(of_index, folders)["nvcc 13.0.88 and what it needs"] == ("the package index", 104_000_000)
    assert "PyTorch 2.11.0 with CUDA 13.0, and what it requires" in said(of_index, folders)


def test_a_mirror_is_named_without_its_password(make_plan: Make, folders: Folders) -> None:
    found = said(make_plan(**CUDA_12, cuda="12.8"), folders, mirror="https://me:secret@mirror.example/cuda")
    (where,) = (where for what, (where, _) in found.items() if what.startswith("CUDA"))
    assert "mirror.example/cuda" in where and "secret" not in where


@pytest.mark.parametrize(
    ("freeze", "python", "there"),
    [
        ("torch==2.7.1+cu128", "3.11", True),
        ("torch==2.7.1", "3.11", False),  # that of the package index, with CUDA 12.6
        ("torch==2.7.1+cu128", "3.12", False),
    ],
)
def test_a_pytorch_of_another_environment_is_not_fetched_again(
    make_plan: Make, folders: Folders, freeze: str, python: str, there: bool
) -> None:
    environment(folders, python, "numpy==2.0", freeze)
    found = said(make_plan(**CUDA_12, cuda="12.8"), folders)
    assert any(what.startswith("PyTorch") for what in found) is not there


def test_what_is_kept_is_not_fetched(make_plan: Make, folders: Folders) -> None:
    plan = make_plan(**CUDA_12, cuda="12.8")
    environment(folders, "3.11", "torch==2.7.1+cu128")
    (folders.sources / plan.source.sha256).mkdir(parents=True)
    provide(folders.toolchains / release_name(plan.toolchain), lambda _: {})
    assert fetches_of(plan, folders) == ()
    pin = SourcePin(kind="git", name="x", url="https://h/x", commit="a" * 40)
    plan = plan.model_copy(update={"source": pin})
    assert len(fetches_of(plan, folders)) == 1
    provide(checkout_entry(folders, pin.commit, pin.submodules), lambda _: {})
    assert fetches_of(plan, folders) == ()


def test_a_toolchain_whose_making_was_ended_is_fetched_still(make_plan: Make, folders: Folders) -> None:
    plan = make_plan()
    packages = pypi_toolchain("13.0")
    assert packages is not None
    entry = folders.toolchains / packages_name(packages)
    entry.mkdir(parents=True)
    assert any(what.startswith("nvcc") for what in said(plan, folders))
    (entry / "complete.json").write_text(json.dumps({}))
    assert not any(what.startswith("nvcc") for what in said(plan, folders))


@pytest.mark.parametrize(
    ("pin", "count"),
    [
        (SourcePin(kind="folder", name="x", sha256="a" * 64), 0),
        (SourcePin(kind="git", name="x", commit="a" * 40), 0),  # a repository of this machine has no URL
        (SourcePin(kind="sdist", name="x-1.0.tar.gz", sha256="a" * 64), 1),
    ],
)
def test_sources(make_plan: Make, folders: Folders, pin: SourcePin, count: int) -> None:
    environment(folders, "3.11", "torch==2.7.1")
    plan = make_plan(**CUDA_12, toolchain="nvidia").model_copy(update={"source": pin})
    provide(folders.toolchains / release_name(plan.toolchain), lambda _: {})
    assert len(fetches_of(plan, folders)) == count


def test_a_universal_wheel_has_each_pytorch_for_each_python(make_plan: Make, folders: Folders) -> None:
    plan = make_plan(universal=True, torch="2.11,2.12", python="3.11,3.12")
    environment(folders, "3.11", "torch==2.11.0")
    found: dict[str, Any] = said(plan, folders)
    assert found["PyTorch 2.11.0 with CUDA 13.0 for Python 3.12, and what it requires"][1] == 2_720_000_000
    assert found["PyTorch 2.12.1 with CUDA 13.0 for Python 3.11, 3.12, and what it requires"][1] == 3_273_000_000


def test_the_pytorch_that_is_installed_is_not_fetched(make_plan: Make, folders: Folders) -> None:
    pin = TorchPin(version="2.11.0", build="2.11.0+cu130", git="", cxx11_abi=True, cxx=17, official=True, digest="")
    plan = make_plan().model_copy(update={"installed": pin})
    assert not any(what.startswith("PyTorch") for what in said(plan, folders))
