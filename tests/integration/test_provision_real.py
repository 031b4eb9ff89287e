"""Provisioning for real: packages come from the indexes that this machine is configured with."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from attnforge.errors import HostError
from attnforge.model.host import Interpreter
from attnforge.paths import Folders
from attnforge.process import Command, run
from attnforge.provision.archives import unpack
from attnforge.provision.configuration import read_settings
from attnforge.provision.environment import EnvironmentPins, provide_environment
from attnforge.provision.indexes import IndexSettings, offered
from attnforge.provision.source import fetch_sdist, open_local
from attnforge.provision.toolchain import provide_toolchain
from attnforge.provision.uv import Uv

pytestmark = pytest.mark.network

VERSION = "2.7.2.post1"
SHA256 = "574897afeb6cbd63e78a612dded95491efe4a46818245cf1a5ace7357d993faa"  # as the package index states it
KERNEL = '__global__ void f(int* x) { *x = 1; }\nextern "C" void g(int* x) { f<<<1, 1>>>(x); }\n'


@pytest.fixture(scope="module")
def settings() -> IndexSettings:
    return read_settings(os.environ)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("cache é x"))


@pytest.fixture(scope="module")
def uv(settings: IndexSettings) -> Uv:
    program = Path(sys.executable).with_name("uv")
    return Uv(str(program if program.exists() else shutil.which("uv")), settings, os.environ)


def test_the_index_states_the_hash(settings: IndexSettings) -> None:
    found = {release.version: release for release in offered("flash-attn", settings).sdists}
    assert found[VERSION].sha256 == SHA256


def test_an_sdist_by_its_hash(folders: Folders, settings: IndexSettings) -> None:
    path = fetch_sdist("flash-attn", VERSION, SHA256, folders, settings)
    top = unpack(path, folders.builds / "source")
    assert (top / "setup.py").is_file()
    assert (top / "csrc" / "cutlass" / "include").is_dir()
    source = open_local(top)
    assert (source.name.replace("_", "-"), source.version) == ("flash-attn", VERSION)


def test_a_wrong_hash_is_refused(folders: Folders, settings: IndexSettings) -> None:
    with pytest.raises(HostError, match="refused") as caught:
        fetch_sdist("flash-attn", VERSION, "0" * 64, folders, settings)
    assert SHA256 in caught.value.why
    assert not (folders.sources / ("0" * 64)).exists()


def test_a_small_environment(folders: Folders, uv: Uv) -> None:
    here = Interpreter(path=sys.executable, version=".".join(map(str, sys.version_info[:3])), has_headers=True)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = provide_environment(EnvironmentPins(python, ("packaging==25.0",)), folders, uv, [here])
    outcome = run(
        Command(
            (str(environment.python), "-c", "import packaging; print(packaging.__version__)"), folders.cache, {}, 60
        )
    )
    assert outcome.output.strip() == "25.0"
    assert environment.freeze == ("packaging==25.0",)
    assert (environment.site_packages / "packaging").is_dir()


@pytest.mark.compile
def test_a_toolchain_compiles_and_links_with_no_cuda_on_path(folders: Folders, uv: Uv, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    toolchain = provide_toolchain("13.0", "pypi", "", folders, uv, compiler)
    (tmp_path / "k.cu").write_text(KERNEL)
    argv = (str(toolchain.nvcc), "-arch=sm_90", "-shared", "-Xcompiler", "-fPIC", "-lcudart", "-o", "k.so", "k.cu")
    outcome = run(Command(argv, tmp_path, {"PATH": "/usr/bin:/bin"}, timeout=300))
    assert outcome.ok, outcome.output
    assert (tmp_path / "k.so").read_bytes()[:4] == b"\x7fELF"
