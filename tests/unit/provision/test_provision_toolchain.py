"""CUDA toolchains, with a runner that plays uv and nvcc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from packaging.requirements import Requirement

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.toolchains import ToolchainPackages, pypi_toolchain, pypi_toolchains
from attnforge.paths import Folders
from attnforge.process import Command, Outcome
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.toolchain import complete, nvcc_version, provide_toolchain
from attnforge.provision.uv import Uv

GXX = "/some compilers/g++"


def banner(version: str) -> str:
    return f"Cuda compilation tools, release {version.rpartition('.')[0]}, V{version}\nBuild cuda_x\n"


class World:
    """Plays uv (lays out packages) and nvcc (prints ``version``, compiles as ``compiles`` says)."""

    def __init__(self, version: str = "13.0.88", compiles: Outcome | None = None) -> None:
        self.version = version
        self.compiles = compiles or Outcome(0, "")
        self.commands: list[Command] = []

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        self.commands.append(command)
        if command.argv[1:3] == ("pip", "install"):
            lay_out(Path(command.argv[command.argv.index("--target") + 1]) / "nvidia" / "cu13")
            return Outcome(0, "")
        if command.argv[1] == "--version":
            return Outcome(0, banner(self.version))
        return self.compiles


def lay_out(home: Path) -> Path:
    for name in ("bin/nvcc", "lib/libcudart.so.13", "lib/libnvvm.so.4", "lib/libcudart_static.a"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("")
    return home


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache é x")


def uv(world: Callable[..., Outcome]) -> Uv:
    environ = {"HOME": "/h", "PATH": "/usr/local/cuda/bin", "NVCC_APPEND_FLAGS": "-G"}
    return Uv("/bin/uv", IndexSettings(), environ, world)


def test_from_the_index(folders: Folders) -> None:
    world = World()
    toolchain = provide_toolchain("13.0", "pypi", "", folders, uv(world), GXX)
    packages = pypi_toolchain("13.0")
    assert packages is not None
    assert world.commands[0].argv[-len(packages.packages) :] == packages.packages
    assert toolchain.home == toolchain.nvcc.parent.parent
    assert toolchain.home.is_relative_to(folders.toolchains)
    assert (toolchain.cuda, toolchain.version, toolchain.origin) == ("13.0", "13.0.88", "pypi")
    assert toolchain.packages == packages.packages
    assert (toolchain.home / "lib64" / "libcudart.so").exists()


def test_seen_to_compile_with_nothing_of_cuda_on_path(folders: Folders) -> None:
    world = World()
    provide_toolchain("13.0", "pypi", "", folders, uv(world), GXX)
    probe = world.commands[-1]
    assert probe.argv[probe.argv.index("-ccbin") + 1] == GXX
    assert probe.env["PATH"] == "/some compilers:/usr/bin:/bin"
    assert "NVCC_APPEND_FLAGS" not in probe.env
    assert "__global__" in (probe.cwd / "probe.cu").read_text()
    assert probe.env["TMPDIR"] == str(probe.cwd)


def test_the_second_time_nothing_is_run(folders: Folders) -> None:
    first = provide_toolchain("13.0", "pypi", "", folders, uv(World()), GXX)
    world = World()
    assert provide_toolchain("13.0", "pypi", "", folders, uv(world), GXX) == first
    assert world.commands == []


def test_each_cuda_has_its_own_folder(folders: Folders) -> None:
    homes = {
        provide_toolchain(known.cuda, "pypi", "", folders, uv(World(known.nvcc)), GXX).home
        for known in pypi_toolchains()
    }
    assert len(homes) == len(pypi_toolchains())


@pytest.mark.parametrize(
    ("output", "says", "hint"),
    [
        (
            "/x/host_config.h:141:2: error: #error -- unsupported GNU version! gcc versions later than 15 are not "
            "supported!\n",
            "newer than this nvcc supports",
            "CXX=g++-12",
        ),
        ("gcc: fatal error: cannot execute 'cc1plus': execvp: No such file\n", "does not compile", "apt install g++"),
        ("", "does not compile", "apt install g++"),
    ],
)
def test_one_that_does_not_compile_is_not_kept(folders: Folders, output: str, says: str, hint: str) -> None:
    with pytest.raises(HostError, match=says) as caught:
        provide_toolchain("13.0", "pypi", "", folders, uv(World(compiles=Outcome(1, output))), GXX)
    assert hint in caught.value.hint
    assert caught.value.why
    assert not list(folders.toolchains.glob("*/complete.json"))
    assert provide_toolchain("13.0", "pypi", "", folders, uv(World()), GXX).nvcc.exists()


def test_without_a_compiler_nothing_is_downloaded(folders: Folders) -> None:
    world = World()
    with pytest.raises(HostError, match=r"no C\+\+ compiler") as caught:
        provide_toolchain("13.0", "pypi", "", folders, uv(world))
    assert "apt install g++" in caught.value.hint
    assert world.commands == []


def test_another_nvcc_than_pinned(folders: Folders) -> None:
    with pytest.raises(HostError, match=r"13\.0\.48, not 13\.0\.88"):
        provide_toolchain("13.0", "pypi", "", folders, uv(World("13.0.48")), GXX)


@pytest.mark.parametrize("cuda", ["12.8", "11.8", "13.9", ""])
def test_a_cuda_that_the_index_lacks(folders: Folders, cuda: str) -> None:
    with pytest.raises(RequestError) as caught:
        provide_toolchain(cuda, "pypi", "", folders, uv(World()), GXX)
    assert "13.0" in caught.value.why
    assert "CUDA_HOME" in caught.value.hint


@pytest.mark.parametrize("character", ['"', "$", "`", "\\"])
def test_a_folder_that_nvccs_shell_would_misread(tmp_path: Path, character: str) -> None:
    with pytest.raises(HostError, match="nvcc can't work in") as caught:
        provide_toolchain("13.0", "pypi", "", Folders(tmp_path / f"a{character}b"), uv(World()), GXX)
    assert "ATTNFORGE_CACHE" in caught.value.hint


def test_the_systems(tmp_path: Path, folders: Folders) -> None:
    home = lay_out(tmp_path / "cuda")
    toolchain = provide_toolchain("13.0", "system", str(home), folders, uv(World("13.0.88")))
    assert (toolchain.home, toolchain.version, toolchain.packages) == (home, "13.0.88", ())
    assert not (home / "lib64").exists()


def test_the_systems_of_another_version(tmp_path: Path, folders: Folders) -> None:
    with pytest.raises(HostError, match=r"12\.8\.93, not 13\.0") as caught:
        provide_toolchain("13.0", "system", str(tmp_path), folders, uv(World("12.8.93")))
    assert "--cuda 12.8" in caught.value.hint


@pytest.mark.parametrize("outcome", [Outcome(0, "hello"), Outcome(1, banner("13.0.88")), Outcome(-11, "")])
def test_an_nvcc_that_does_not_work(outcome: Outcome) -> None:
    with pytest.raises(HostError, match="does not work"):
        nvcc_version(Path("/x/bin/nvcc"), lambda command, log=None: outcome, {})


def test_an_nvcc_that_is_not_there(tmp_path: Path) -> None:
    from attnforge.process import run

    (tmp_path / "bin").mkdir()
    with pytest.raises(HostError, match="can't be started"):
        nvcc_version(tmp_path / "bin" / "nvcc", run, {})


def test_complete_is_done_once_and_changes_nothing_that_is_there(tmp_path: Path) -> None:
    home = lay_out(tmp_path / "home")
    (home / "lib" / "libnvvm.so").write_text("own")
    complete(home)
    complete(home)
    assert (home / "lib64").readlink() == Path("lib")
    assert (home / "lib" / "libcudart.so").readlink() == Path("libcudart.so.13")
    assert (home / "lib" / "libnvvm.so").read_text() == "own"


@pytest.mark.parametrize("known", pypi_toolchains(), ids=lambda known: known.cuda)
def test_a_set_is_consistent(known: ToolchainPackages) -> None:
    names = {Requirement(package).name: str(Requirement(package).specifier) for package in known.packages}
    assert set(names) == {
        "nvidia-cuda-nvcc",
        "nvidia-nvvm",
        "nvidia-cuda-crt",
        "nvidia-cuda-runtime",
        "nvidia-cuda-cccl",
    }
    assert names["nvidia-cuda-nvcc"] == names["nvidia-nvvm"] == names["nvidia-cuda-crt"] == f"=={known.nvcc}"
    assert all(pin.startswith(f"=={known.cuda}.") for pin in names.values())
    assert known.source


def test_cudas_are_known_once() -> None:
    assert len({known.cuda for known in pypi_toolchains()}) == len(pypi_toolchains())
    assert pypi_toolchain("12.8") is None


@pytest.mark.parametrize("package", ["nvidia-nvvm", "nvidia-nvvm>=13.0", "nvidia-nvvm==13.0.*", "nvidia-nvvm==13"])
def test_packages_have_to_be_pinned(package: str) -> None:
    with pytest.raises(ValueError, match="not pinned"):
        ToolchainPackages(cuda="13.0", nvcc="13.0.88", home="x", packages=(package,), source="x")
