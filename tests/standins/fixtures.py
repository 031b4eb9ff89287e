"""Fixtures of the tests that run whole builds: ``pytest_plugins = ["standins.fixtures"]``."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from standins import house
from standins.forge import Forge


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every wheel that build environments are made of, in place of an index."""
    if shutil.which("c++", path="/usr/bin:/bin") is None:
        pytest.skip("no C++ compiler in /usr/bin")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        pytest.skip("this Python has no headers")
    return house.make_wheels(tmp_path_factory.mktemp("house") / "wheels")


@pytest.fixture(scope="session")
def wheels_of_pairs(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """The same folder with more than one PyTorch in it."""
    folder = tmp_path_factory.mktemp("house of pairs")
    for wheel in wheels.iterdir():
        (folder / wheel.name).hardlink_to(wheel)
    for version in house.MORE_TORCHES:
        house.torch_wheel(folder, version)
    return folder


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of uv's for all tests: what it unpacks is the same for each."""
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def forge(tmp_path: Path, wheels: Path, uv_cache: Path) -> Forge:
    """A user with an empty cache and a CUDA toolkit."""
    return Forge(tmp_path, wheels, house.make_toolkit(tmp_path / "cuda"), uv_cache)


@pytest.fixture
def awkward(tmp_path: Path, wheels: Path, uv_cache: Path) -> Forge:
    """The same in folders whose names have spaces and letters outside ASCII."""
    folder = tmp_path / "Käte's große Ordner"
    folder.mkdir()
    return Forge(folder, wheels, house.make_toolkit(folder / "cuda 13 ü"), uv_cache)
