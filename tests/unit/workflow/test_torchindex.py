"""PyTorch releases that are read from an index: one that is served on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.torch import find_torch
from attnforge.model.host import Host, Toolkit
from attnforge.model.plan import BuildPlan
from attnforge.model.request import Request
from attnforge.provision.indexes import IndexSettings
from attnforge.workflow import machine as machines
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan
from attnforge.workflow.torchindex import read_torches, release_for
from standins.house import write_wheel
from standins.index import Index, closed_url, serve

CUDA_13 = 'cuda-toolkit[cudart]==13.0.3; platform_system == "Linux"'
BULK = 3 << 20


def wheel(folder: Path, version: str, tag: str = "cp312-cp312-manylinux_2_28_x86_64", requires: str = CUDA_13) -> Path:
    # Bytes that don't compress would be in PyTorch's libraries; this archive stores them as they are.
    return write_wheel(folder, "torch", version, tag, {"torch/lib/libtorch.so": bytes(BULK)}, [requires])


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with some PyTorch, of the table and not."""
    folder = tmp_path / "files"
    folder.mkdir()
    for version in ("2.11.0", "2.98.0", "2.98.1", "2.98.2rc1"):
        wheel(folder, version)
    wheel(folder, "2.98.1", "cp314-cp314t-manylinux_2_28_x86_64")
    wheel(folder, "2.98.1", "cp313-cp313-win_amd64")
    wheel(folder, "2.99.0", requires="nvidia-cuda-runtime==13.2.*")
    wheel(folder, "2.3.1")
    wheel(folder, "3.1.0", requires="filelock")
    wheel(folder, "2.96.0+cpu", requires="filelock")
    wheel(folder, "2.96.0+cu126", requires="filelock")
    with serve(folder) as served:
        yield served


def settings(index: Index) -> IndexSettings:
    return IndexSettings(index_urls=(index.url,), keeps_default=False)


@pytest.mark.parametrize(("apart", "ranges"), [(True, False), (False, True), (False, False)])
def test_a_release_is_read_however_the_index_serves_it(index: Index, apart: bool, ranges: bool) -> None:
    index.metadata, index.ranges = apart, ranges
    (release,) = read_torches("2.98.1", settings(index))
    assert (release.version, release.cuda, release.index_cuda) == ("2.98.1", ("13.0",), "13.0")
    assert (release.pythons, release.free_threaded) == (("3.12",), ("3.14t",))
    assert release.cxx == 20
    assert release.read_from.startswith("torch-2.98.1-cp31")
    # Only a server that can do no better sends the whole wheel.
    assert (index.sent > BULK) is not (apart or ranges)


def test_a_folder_of_wheels_serves(tmp_path: Path) -> None:
    wheel(tmp_path, "2.98.0")
    found = IndexSettings(find_links=(str(tmp_path),), keeps_default=False)
    assert [release.version for release in read_torches("2.98", found)] == ["2.98.0"]


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("2.98", ["2.98.1"]),  # its newest patch that is final
        ("2.98.2rc1", ["2.98.2rc1"]),
        ("2.11.0", []),
        ("2.11,2.12", []),
        ("2.11,2.98.0", ["2.98.0"]),
        ("2.14-2.99", ["2.99.0", "2.96.0", "2.98.1"]),
        ("banana", []),
        ("", []),
    ],
)
def test_what_is_asked_of_the_index(index: Index, text: str, versions: list[str]) -> None:
    assert [release.version for release in read_torches(text, settings(index))] == versions


def test_of_several_builds_the_one_with_cuda_counts(index: Index) -> None:
    (release,) = read_torches("2.96.0", settings(index))
    assert release.cuda == ("12.6",)
    assert "cu126" in release.read_from


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("2.95.0", "PyTorch 2.95.0 is not known", "--torch 2.15.0"),
        ("2.11.9", "PyTorch 2.11.9 is not known", "--torch 2.11.0"),
        ("3.1.0", "PyTorch 3.1.0 on the package index is built without CUDA", "PIP_EXTRA_INDEX_URL"),
    ],
)
def test_a_release_that_can_not_be_had(index: Index, text: str, said: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_torches(text, settings(index))
    assert said in caught.value.what
    assert hint in caught.value.hint


def test_an_index_that_does_not_answer_is_the_environments_fault() -> None:
    with pytest.raises(HostError) as caught:
        read_torches("2.98.0", IndexSettings(index_urls=(closed_url(),), keeps_default=False))
    assert "can't be reached" in caught.value.what
    assert "--torch 2.15.0" in caught.value.hint


def test_a_file_that_is_no_wheel_is_said(index: Index) -> None:
    next(path for name, path in index.files.items() if name.startswith("torch-2.99.0")).write_bytes(b"no archive")
    with pytest.raises(HostError, match=r"torch-2.99.0-.* can't be read as a wheel"):
        read_torches("2.99.0", settings(index))


@pytest.fixture
def machine(index: Index, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """A machine with that index, and toolkits of CUDA 13."""
    toolkits = tuple(Toolkit(home=f"/cuda-{cuda}", cuda=cuda, nvcc=f"{cuda}.88") for cuda in ("13.0", "13.2"))
    monkeypatch.setattr(machines, "probe", lambda *_: make_host(toolkits=toolkits))
    return Machine(
        {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "UV_NO_CONFIG": "1"}
    )


def planned(machine: Machine, **changes: Any) -> Any:
    return plan(machine, Request(package="flash-attn", gpus=("H100",), **changes)).resolution


def test_a_plan_for_it_says_what_was_read_and_where(machine: Machine) -> None:
    made = planned(machine, torch="2.99")
    target = made.plan.target
    assert (target.torch, target.cuda, target.python) == ("2.99.0", "13.2", "3.12")
    assert made.plan.requires_torch == "==2.99.*"
    (told,) = (decision for decision in made.decisions if decision.subject == "torch release")
    assert told.choice == "PyTorch 2.99.0: CUDA 13.2; Python 3.12"
    assert "torch-2.99.0-cp312-cp312-manylinux_2_28_x86_64.whl" in told.reason


def test_a_universal_plan_for_it_and_for_listed_ones(machine: Machine) -> None:
    made = planned(machine, torch="2.13,2.98", universal=True)
    assert [str(pair) for pair in made.plan.pairs] == ["PyTorch 2.13, Python 3.12", "PyTorch 2.98, Python 3.12"]
    assert made.plan.target.cuda == "13.0"


def test_its_free_threaded_python(machine: Machine) -> None:
    made = planned(machine, torch="2.98.1", python="3.14t")
    assert made.plan.wheel.endswith("-cp314-cp314t-linux_x86_64.whl")
    with pytest.raises(RequestError, match=r"has no build for Python 3.15t"):
        planned(machine, torch="2.98.1", python="3.15t")


def test_another_cuda_than_it_has_is_refused(machine: Machine) -> None:
    with pytest.raises(RequestError, match=r"PyTorch 2.99.0 has no build with CUDA 12.6"):
        planned(machine, torch="2.99.0", cuda="12.6")


def test_a_package_that_needs_another_is_refused_all_the_same(machine: Machine) -> None:
    with pytest.raises(RequestError, match=r"Mamba needs PyTorch >=2.9, the target has 2.3.1") as caught:
        plan(machine, Request(package="mamba-ssm", gpus=("H100",), torch="2.3"))
    assert "--torch 2." in caught.value.hint


@pytest.mark.parametrize(
    ("text", "cuda", "pythons"),
    [("2.98.1", ("12.9",), ("3.12",)), ("2.98.1+cu129", ("12.9",), ("3.12",)), ("2.99.0", ("13.2",), ("3.12",))],
)
def test_a_wheel_says_itself_what_it_was_built_for(
    index: Index, make_plan: Callable[..., BuildPlan], text: str, cuda: tuple[str, ...], pythons: tuple[str, ...]
) -> None:
    plan = make_plan()
    plan = plan.model_copy(update={"target": plan.target.model_copy(update={"torch": "2.98.1", "cuda": "12.9"})})
    release = release_for(text, plan, settings(index))
    assert (release.cuda, release.pythons) == (cuda, pythons)
    assert release_for("2.11", plan, settings(index)) == find_torch("2.11.0")
