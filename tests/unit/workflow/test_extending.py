"""What an extension of a universal wheel would do, and what it refuses: without making anything."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnforge.errors import AttnforgeError, HostError, RequestError, WheelError
from attnforge.model.host import Host, HostCompiler
from attnforge.model.plan import BuildPlan, Selection, SourcePin, ToolchainPin
from attnforge.model.request import Request
from attnforge.model.universal import DOCUMENT, Pair, Universal, UniversalModule
from attnforge.provision.source import open_local
from attnforge.recipes.catalogue import find_recipe
from attnforge.wheelfile.archive import open_archive
from attnforge.workflow import machine as machines
from attnforge.workflow.extending import extend
from attnforge.workflow.extension import Extension, plan_extension
from attnforge.workflow.fitting import read_name
from attnforge.workflow.machine import Machine
from attnforge.workflow.sources.kinds import Commit, Folder

NAME = "flash_attn-2.8.3+cu130torch2.11to2.12.py3.12.sm90-py3-none-linux_x86_64.whl"
MODULE = UniversalModule(name="flash_attn_2_cuda", library="libflash_attn_2_cuda-0123456789abcdef.so")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
URL = "https://git.example.org/kernels/flash-attention"
GIT = SourcePin(kind="git", name="flash-attention", url=URL, commit=COMMIT)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """A machine with g++ 12.2, that has no toolkit and asks no index."""
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    return Machine({"HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache")})


# What is known of the release is said again: the wheel has its kernels.
OF_THE_RELEASE = "fa2-backward-overflow"


@pytest.fixture
def plan(make_plan: Callable[..., BuildPlan]) -> BuildPlan:
    return pinned(make_plan(universal=True, torch="2.11,2.12.0", python="3.12"))


def pinned(plan: BuildPlan) -> BuildPlan:
    """Return a plan with the source that the recipe names."""
    (sha256,) = {release.sha256.get("2.8.3", "") for release in find_recipe("flash-attn").releases} - {""}
    return plan.model_copy(update={"source": plan.source.model_copy(update={"sha256": sha256})})


@pytest.fixture
def wheel(tmp_path: Path, plan: BuildPlan) -> Path:
    return write(tmp_path / NAME, plan)


def write(path: Path, plan: BuildPlan, *, universal: bool = True) -> Path:
    """Write what an extension reads of a wheel before it makes anything."""
    info = "flash_attn-2.8.3.dist-info"
    held = Universal(pairs=plan.pairs, modules=(MODULE,))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/attnforge/plan.json", json.dumps(plan.to_json()))
        if universal:
            archive.writestr(f"{info}/{DOCUMENT}", json.dumps(held.to_json()))
    return path


def request(**changes: Any) -> Request:
    return Request(package="", universal=True, **changes)


def added(extension: Extension) -> list[tuple[str, str]]:
    return [(pair.torch, pair.python) for pair in extension.pairs]


def refused(machine: Machine, wheel: Path, recipe: str = "", **changes: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        plan_extension(machine, wheel, request(**changes), recipe)
    return caught.value


# --- what is added


@pytest.mark.parametrize(
    ("torch", "python", "pairs"),
    [
        ("2.13", "", [("2.13.0", "3.12")]),
        ("", "3.13", [("2.11.0", "3.13"), ("2.12.0", "3.13")]),
        ("2.13", "3.12-3.13", [("2.13.0", "3.12"), ("2.13.0", "3.13")]),
        ("2.10", "3.11,3.12", [("2.10.0", "3.11"), ("2.10.0", "3.12")]),
        # What the wheel holds already is left out.
        ("2.11-2.13", "3.12", [("2.13.0", "3.12")]),
        ("2.12.0", "3.11,3.12", [("2.12.0", "3.11")]),
    ],
)
def test_what_is_not_said_is_the_wheels_own(
    machine: Machine, wheel: Path, torch: str, python: str, pairs: list[tuple[str, str]]
) -> None:
    extension = plan_extension(machine, wheel, request(torch=torch, python=python))
    assert added(extension) == pairs
    assert set(extension.plan.pairs) == {*extension.universal.pairs, *extension.pairs}
    assert {warning.subject for warning in extension.warnings} == {OF_THE_RELEASE}


def test_the_plan_is_that_of_a_build_of_all(
    machine: Machine, wheel: Path, plan: BuildPlan, make_plan: Callable[..., BuildPlan]
) -> None:
    extension = plan_extension(machine, wheel, request(torch="2.10"))
    assert extension.plan == pinned(make_plan(universal=True, torch="2.10,2.11,2.12.0", python="3.12", cuda="13.0"))
    assert extension.plan.target.torch == "2.10.0"
    assert extension.located.pin == plan.source
    assert extension.toolchain == plan.toolchain


@pytest.mark.parametrize("torch", ["2.12", "2.12.1"])
def test_a_minor_keeps_the_patch_that_the_wheel_holds(
    machine: Machine, wheel: Path, tmp_path: Path, torch: str
) -> None:
    """A wheel has one patch of each minor, as one build of all pairs would: the newest known may be another by now."""
    held = refused(machine, wheel, torch=torch)
    assert held.what == "the wheel has PyTorch 2.12, Python 3.12 already"
    extension = plan_extension(machine, wheel, request(torch=torch, python="3.13"))
    assert added(extension) == [("2.12.0", "3.13")]
    (warning,) = (one for one in extension.warnings if one.subject != OF_THE_RELEASE)
    assert "PyTorch 2.12.0, and not 2.12.1" in warning.message
    # Such a wheel can be extended again.
    grown = write(tmp_path / "grown.whl", extension.plan)
    assert added(plan_extension(machine, grown, request(python="3.11"))) == [("2.11.0", "3.11"), ("2.12.0", "3.11")]


def test_another_host_compiler_is_told_of_in_the_new_pairs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], wheel: Path, plan: BuildPlan
) -> None:
    newer = HostCompiler(path="/usr/bin/g++", name="g++", version="14.2.0")
    monkeypatch.setattr(machines, "probe", lambda *_: make_host(compilers=(newer,)))
    extension = plan_extension(Machine(machine.environ), wheel, request(torch="2.13"))
    assert extension.pairs == (Pair(torch="2.13.0", python="3.12", host_compiler="g++ 14.2.0"),)
    assert extension.pairs[0] in extension.plan.pairs
    # The kernels' compilers are those that they were compiled with.
    assert extension.plan.toolchain == plan.toolchain
    assert extension.toolchain.host_compiler == "g++ 14.2.0"


def test_the_same_host_compiler_is_not(machine: Machine, wheel: Path) -> None:
    assert [pair.host_compiler for pair in plan_extension(machine, wheel, request(torch="2.13")).pairs] == [""]


# --- what is refused


def test_a_wheel_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    error = refused(machine, tmp_path / "none.whl", torch="2.13")
    assert (error.what, error.hint) == (
        f"there is no file {tmp_path / 'none.whl'}",
        "name a wheel: dist/NAME.whl",
    )


def test_a_plain_wheel(machine: Machine, tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    plain = write(tmp_path / "plain.whl", make_plan(), universal=False)
    error = refused(machine, plain, torch="2.13")
    assert error.what == "plain.whl is not a universal wheel"
    assert "--universal" in error.hint


def test_a_wheel_of_pure_python_is_for_all_already(
    machine: Machine, tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    pure = make_plan().model_copy(update={"toolchain": ToolchainPin(origin="none")})
    error = refused(machine, write(tmp_path / "pure.whl", pure, universal=False), torch="2.13")
    assert "is pure Python: it is for every Python and PyTorch already" in error.what and "modules" not in str(error)


@pytest.mark.parametrize(("place", "said"), [("", "is a folder"), ("/dev/null", "is no ordinary file")])
def test_what_is_there_and_no_wheel_is_not_called_missing(tmp_path: Path, place: str, said: str) -> None:
    for look in (read_name, lambda path: open_archive(path).__enter__()):
        with pytest.raises(RequestError, match=said):
            look(Path(place or tmp_path))


def test_a_wheel_of_someone_else(machine: Machine, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.whl"
    with zipfile.ZipFile(theirs, "w") as archive:
        archive.writestr("flash_attn/__init__.py", "")
    assert refused(machine, theirs, torch="2.13").what == "theirs.whl is not a universal wheel"


def test_nothing_named(machine: Machine, wheel: Path) -> None:
    error = refused(machine, wheel)
    assert (error.what, error.hint) == ("nothing to add is named", "--torch 2.14, --python 3.13, or both")


def test_all_that_is_named_is_held(machine: Machine, wheel: Path) -> None:
    error = refused(machine, wheel, torch="2.11-2.12", python="3.12")
    assert error.what == "the wheel has PyTorch 2.11, Python 3.12, PyTorch 2.12, Python 3.12 already"
    assert error.hint


def test_a_pytorch_of_another_cuda(machine: Machine, wheel: Path) -> None:
    error = refused(machine, wheel, torch="2.15")
    assert "no build with CUDA 13.0" in error.what
    assert "--torch 2.15" in error.hint


def test_a_recipe_with_other_rules(machine: Machine, tmp_path: Path, plan: BuildPlan) -> None:
    other = write(tmp_path / NAME, plan.model_copy(update={"recipe": "f" * 64}))
    error = refused(machine, other, torch="2.13")
    assert error.what == "the installed recipe for flash-attn is not the one that the wheel was built with"
    assert "provenance.json" in error.hint and "--recipe FILE" in error.hint


def test_a_recipe_of_ones_own_for_another_package(machine: Machine, tmp_path: Path, wheel: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "other"\ntitle = "x"\nsummary = "x"\n[[releases]]\nversions = ">=1"\narchitectures = ["90"]\n'
    )
    assert "is not the one that" in refused(machine, wheel, str(own), torch="2.13").what
    assert "none.toml" in refused(machine, wheel, str(tmp_path / "none.toml"), torch="2.13").what


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "flash-attention"
    folder.mkdir()
    (folder / "setup.py").write_text("from setuptools import setup\nsetup(name='flash-attn', version='2.8.3')\n")
    return folder


@pytest.fixture
def of_folder(tmp_path: Path, plan: BuildPlan, source: Path) -> Path:
    """A universal wheel that was built from a folder of this machine."""
    pin = SourcePin(kind="folder", name=source.name, sha256=open_local(source).sha256)
    return write(tmp_path / NAME, plan.model_copy(update={"source": pin}))


def test_a_folder_is_taken_where_it_is_the_same(
    machine: Machine, of_folder: Path, source: Path, tmp_path: Path
) -> None:
    moved = source.rename(tmp_path / "elsewhere")
    located = plan_extension(machine, of_folder, request(torch="2.13", source=str(moved))).located
    assert isinstance(located.source, Folder)
    assert (located.source.path, located.pin.name) == (moved, "flash-attention")


def test_a_folder_that_is_not_named_has_changed_or_is_gone(machine: Machine, of_folder: Path, source: Path) -> None:
    unnamed = refused(machine, of_folder, torch="2.13")
    assert unnamed.what == "the wheel was built from the folder flash-attention, which only you have"
    assert unnamed.hint == "--source PATH of flash-attention"
    (source / "setup.py").write_text("from setuptools import setup\nsetup(name='flash-attn', version='2.8.4')\n")
    changed = refused(machine, of_folder, torch="2.13", source=str(source))
    assert changed.what == f"{source} is not the source that the wheel was built from"
    assert "sha256" in changed.why
    assert "--source PATH" in changed.hint
    assert "does not exist" in refused(machine, of_folder, torch="2.13", source=f"{source}x").what


def test_a_git_source_is_had_where_the_recipe_says_or_the_user(
    machine: Machine, tmp_path: Path, plan: BuildPlan
) -> None:
    known = find_recipe("flash-attn").git
    assert known is not None
    pin = GIT.model_copy(update={"url": known.url})
    wheel = write(tmp_path / NAME, plan.model_copy(update={"source": pin}))
    source = plan_extension(machine, wheel, request(torch="2.13")).located.source
    assert isinstance(source, Commit)
    assert (source.address.url, source.address.ref) == (known.url, COMMIT)
    # What a wheel says of another place is not believed: its setup.py would be run.
    wheel = write(tmp_path / NAME, plan.model_copy(update={"source": GIT}))
    error = refused(machine, wheel, torch="2.13")
    assert URL in error.why and "--source" in error.hint
    elsewhere = f"git+{tmp_path.as_uri()}"
    located = plan_extension(machine, wheel, request(torch="2.13", source=elsewhere)).located
    assert isinstance(located.source, Commit)
    assert located.source.address.url == tmp_path.as_uri()
    # What is built is the wheel's own commit, wherever it is had.
    assert located.pin == GIT


def test_a_repository_of_ones_own_has_to_be_named(machine: Machine, tmp_path: Path, plan: BuildPlan) -> None:
    """The wheel does not say where a repository of the machine that built it lies."""
    local = GIT.model_copy(update={"url": ""})
    wheel = write(tmp_path / NAME, plan.model_copy(update={"source": local}))
    error = refused(machine, wheel, torch="2.13")
    assert error.what == "the wheel was built from a git repository flash-attention on its builder's machine"
    assert error.hint == f"--source git+file:///FOLDER of a clone that has the commit {COMMIT}"
    located = plan_extension(machine, wheel, request(torch="2.13", source=f"git+{tmp_path.as_uri()}")).located
    assert isinstance(located.source, Commit)


def test_a_machine_without_a_compiler(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], wheel: Path
) -> None:
    monkeypatch.setattr(machines, "probe", lambda *_: make_host(compilers=()))
    with pytest.raises(HostError, match="no C"):
        plan_extension(Machine(machine.environ), wheel, request(torch="2.13"))


# --- what is found out only when it is made


def test_a_source_that_changed_since_ends_it_before_anything_is_made(
    machine: Machine, of_folder: Path, source: Path, tmp_path: Path
) -> None:
    extension = plan_extension(machine, of_folder, request(torch="2.13", source=str(source)))
    (source / "setup.py").write_text("")
    with pytest.raises(AttnforgeError, match="changed after it was planned"):
        extend(machine, extension, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_wheel_whose_library_is_gone(
    machine: Machine, of_folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnforge.workflow.providing.provide_pinned", lambda *_: None)
    extension = plan_extension(machine, of_folder, request(torch="2.13", source=str(source)))
    with pytest.raises(WheelError) as caught:
        extend(machine, extension, tmp_path / "dist")
    assert caught.value.what == f"the wheel {NAME} is bad and nothing is added to it"
    assert f"no flash_attn_2_cuda/{MODULE.library}" in caught.value.why
    assert caught.value.hint
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"requirements": ("evil==1.0",)},
        {"settings": (("LD_PRELOAD", "/tmp/evil.so"),)},
        {"package": "flash-attn-3"},
        {"selection": Selection(features=("alibi",), without=("no-such-feature",))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_plan_that_would_have_something_else_installed_or_set_is_refused(
    machine: Machine, tmp_path: Path, plan: BuildPlan, changed: dict[str, Any]
) -> None:
    other = write(tmp_path / NAME, plan.model_copy(update=changed))
    assert "is not the one that the wheel was built with" in refused(machine, other, torch="2.13").what


def test_another_sdist_than_the_recipes_is_refused(machine: Machine, tmp_path: Path, plan: BuildPlan) -> None:
    source = plan.source.model_copy(update={"sha256": "b" * 64})
    other = write(tmp_path / NAME, plan.model_copy(update={"source": source}))
    assert "another source than the recipe" in refused(machine, other, torch="2.13").what


def test_a_plan_of_no_version_is_a_bad_wheel(machine: Machine, tmp_path: Path, plan: BuildPlan) -> None:
    other = write(tmp_path / NAME, plan.model_copy(update={"version": "2.8.3/../x"}))
    with pytest.raises(WheelError, match="a plan of no version"):
        plan_extension(machine, other, request(torch="2.13"))


def test_a_wheel_whose_name_stays_is_not_written_over(machine: Machine, tmp_path: Path, plan: BuildPlan) -> None:
    mine = plan.model_copy(update={"label": "mine", "wheel": "flash_attn-2.8.3+mine-py3-none-linux_x86_64.whl"})
    wheel = write(tmp_path / mine.wheel, mine)
    extension = plan_extension(machine, wheel, request(torch="2.13"))
    before = wheel.read_bytes()
    with pytest.raises(RequestError, match="take the place of") as raised:
        extend(machine, extension, tmp_path)
    assert "--out" in raised.value.hint and wheel.read_bytes() == before


@pytest.mark.parametrize("folder", ["../../etc", "/etc", "a/../../b"])
def test_a_source_is_built_in_a_folder_of_its_own(folder: str) -> None:
    with pytest.raises(ValueError, match="no folder of the source"):
        SourcePin(kind="git", name="x", url=URL, commit=COMMIT, subdirectory=folder)
