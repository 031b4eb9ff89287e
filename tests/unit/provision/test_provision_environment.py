"""Build environments, with a runner that plays uv and the interpreter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from attnforge.errors import AttnforgeError, HostError
from attnforge.model.host import Interpreter
from attnforge.paths import Folders
from attnforge.process import Command, Outcome
from attnforge.provision.environment import (
    EnvironmentPins,
    choose_interpreter,
    provide_environment,
    site_include_dirs,
    torch_cuda,
)
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.uv import Uv

PINS = EnvironmentPins("3.12", ("setuptools", "ninja"), torch="2.11.0", cuda="13.0")
TORCH = "__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"


def interpreter(path: str, version: str, has_headers: bool = True) -> Interpreter:
    return Interpreter(path=path, version=version, has_headers=has_headers)


class World:
    """Plays uv: makes the environment's folders, installs a torch of ``torch`` and notes the calls."""

    def __init__(self, version: str = "3.12.1", headers: bool = True, torch: str = TORCH, fails: str = "") -> None:
        self.version, self.headers, self.torch, self.fails = version, headers, torch, fails
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        self.commands.append(command.argv)
        words = command.argv[1:3]
        if self.fails and self.fails in words:
            return Outcome(1, "error: No space left on device (os error 28)")
        if words[0] == "venv":
            self._venv(Path(command.argv[-1]))
        elif words == ("pip", "install"):
            site = Path(command.argv[command.argv.index("--python") + 1]).parents[1] / "site"
            (site / "torch").mkdir()
            (site / "torch" / "version.py").write_text(self.torch)
        elif words == ("pip", "freeze"):
            return Outcome(0, "ninja==1.13.0\ntorch==2.11.0\n")
        elif words[0] == "-I":
            site = Path(command.argv[0]).parents[1] / "site"
            return Outcome(
                0, json.dumps({"version": self.version, "headers": self.headers, "site_packages": str(site)})
            )
        return Outcome(0, "")

    def _venv(self, venv: Path) -> None:
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").write_text("")
        (venv / "site").mkdir()

    def called(self, *words: str) -> list[tuple[str, ...]]:
        return [argv for argv in self.commands if argv[1 : 1 + len(words)] == words]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache é")


def uv(world: World) -> Uv:
    return Uv("/bin/uv", IndexSettings(), {"HOME": "/h", "CUDA_HOME": "/wrong"}, world)


def test_made_with_the_interpreter_and_the_pins(folders: Folders) -> None:
    world = World()
    environment = provide_environment(PINS, folders, uv(world), [interpreter("/py312", "3.12.1")])
    (venv,) = world.called("venv")
    assert venv[venv.index("--python") + 1] == "/py312"
    (install,) = world.called("pip", "install")
    assert install[-4:] == ("--", "ninja", "setuptools", "torch==2.11.0")
    assert "--torch-backend" not in install
    assert environment.python.is_file()
    assert environment.python.is_relative_to(folders.environments)
    assert environment.freeze == ("ninja==1.13.0", "torch==2.11.0")


def test_pytorchs_own_index_only_where_asked(folders: Folders) -> None:
    world = World(torch=TORCH.replace("13.0", "12.8"))
    provide_environment(replace(PINS, cuda="12.8", torch_backend="cu128"), folders, uv(world))
    (install,) = world.called("pip", "install")
    assert install[install.index("--torch-backend") + 1] == "cu128"


def test_the_second_time_nothing_is_run(folders: Folders) -> None:
    first = provide_environment(PINS, folders, uv(World()))
    world = World()
    assert provide_environment(PINS, folders, uv(world)) == first
    assert world.commands == []


@pytest.mark.parametrize("fails", ["venv", "install", "freeze"])
def test_left_half_made_it_is_made_again(folders: Folders, fails: str) -> None:
    with pytest.raises(HostError, match="no space"):
        provide_environment(PINS, folders, uv(World(fails=fails)))
    world = World()
    provide_environment(PINS, folders, uv(world))
    assert world.called("venv")


def test_an_interpreter_that_vanished_makes_it_again(folders: Folders) -> None:
    provide_environment(PINS, folders, uv(World())).python.unlink()
    world = World()
    assert provide_environment(PINS, folders, uv(world)).python.is_file()
    assert world.called("venv")


@pytest.mark.parametrize(
    "other",
    [
        replace(PINS, torch="2.12.1"),
        replace(PINS, requirements=("ninja",)),
        replace(PINS, cuda="12.8"),
        replace(PINS, torch_backend="cu130"),
        replace(PINS, python="3.11"),
    ],
)
def test_other_pins_other_environment(other: EnvironmentPins) -> None:
    assert other.digest("x") != PINS.digest("x")


def test_order_of_requirements_does_not_count_and_the_interpreter_does() -> None:
    assert replace(PINS, requirements=("ninja", "setuptools")).digest("x") == PINS.digest("x")
    assert PINS.digest("/a 3.12.1") != PINS.digest("/a 3.12.2")


WITHOUT = interpreter("/no-headers", "3.12.9", has_headers=False)


@pytest.mark.parametrize(
    ("found", "path"),
    [
        ([], None),
        ([WITHOUT], None),
        ([interpreter("/a", "3.11.9")], None),
        ([interpreter("/a", "3.1.2")], None),
        ([interpreter("/a", "3.12.2"), interpreter("/b", "3.12.10"), WITHOUT], "/b"),
        ([interpreter("/a", "3.12.0rc1"), interpreter("/b", "3.11.1")], "/a"),
    ],
)
def test_choose_interpreter(found: list[Interpreter], path: str | None) -> None:
    chosen = choose_interpreter("3.12", found)
    assert (chosen.path if chosen else None) == path


def test_without_a_fitting_interpreter_uv_brings_its_own(folders: Folders) -> None:
    world = World()
    provide_environment(PINS, folders, uv(world), [WITHOUT])
    (venv,) = world.called("venv")
    assert "--managed-python" in venv
    assert venv[venv.index("--python") + 1] == "3.12"


@pytest.mark.parametrize(
    ("world", "says", "hint"),
    [
        (World(headers=False), "no headers", "apt install python3.12-dev"),
        (World(version="3.11.7"), "is 3.11.7", "uv python install 3.12"),
        (World(torch=TORCH.replace("'13.0'", "None")), "no CUDA", "find-links"),
        (World(torch=TORCH.replace("'13.0'", "'12.6'")), "CUDA 12.6", "--cuda 12.6"),
    ],
)
def test_an_environment_that_would_not_do(folders: Folders, world: World, says: str, hint: str) -> None:
    with pytest.raises(HostError, match=says) as caught:
        provide_environment(PINS, folders, uv(world))
    assert hint in caught.value.hint
    assert not list(folders.environments.glob("*/complete.json"))


def test_an_interpreter_that_does_not_work(folders: Folders) -> None:
    class Broken(World):
        def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
            if command.argv[1] == "-I":
                return Outcome(127, "error while loading shared libraries: libpython3.12.so")
            return super().__call__(command, log)

    with pytest.raises(HostError, match="does not work") as caught:
        provide_environment(PINS, folders, uv(Broken()))
    assert "libpython" in caught.value.why


def test_a_package_without_torch_needs_none(folders: Folders) -> None:
    world = World()
    provide_environment(EnvironmentPins("3.12"), folders, uv(world))
    assert world.called("pip", "install") == []


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AttnforgeError, match="Not a directory"):
        provide_environment(PINS, Folders(tmp_path / "file" / "cache"), uv(World()))


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        (TORCH, "13.0"),
        ("cuda = '12.1'\n", "12.1"),
        ("cuda: Optional[str] = None\n", ""),
        ("debug = False\n", ""),
        ("# cuda = '1.0'\ncudart = '2.0'\ncuda='3.0'\n", "3.0"),
    ],
)
def test_torch_cuda(tmp_path: Path, text: str, cuda: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(text)
    assert torch_cuda(tmp_path) == cuda


def test_torch_cuda_without_torch(tmp_path: Path) -> None:
    assert torch_cuda(tmp_path) == ""


def test_site_include_dirs(folders: Folders) -> None:
    environment = provide_environment(PINS, folders, uv(World()))
    for name in ("nvidia/cu13/include", "nvidia/cudnn/include", "nvidia/nccl/lib", "other/include"):
        (environment.site_packages / name).mkdir(parents=True)
    names = [str(path.relative_to(environment.site_packages)) for path in site_include_dirs(environment)]
    assert names == ["nvidia/cu13/include", "nvidia/cudnn/include"]


def test_an_interpreter_without_the_global_lock_is_another_one() -> None:
    locked = interpreter("/locked", "3.14.2")
    free = locked.model_copy(update={"path": "/free", "free_threaded": True})
    for python, path in (("3.14", "/locked"), ("3.14t", "/free")):
        chosen = choose_interpreter(python, [locked, free])
        assert chosen is not None and chosen.path == path
    assert choose_interpreter("3.14t", [locked]) is None
