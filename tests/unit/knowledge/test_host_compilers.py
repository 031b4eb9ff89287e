from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from attnforge.knowledge.host_compilers import (
    all_limits,
    compiler_limits,
    known_architectures,
    major_version,
    supports,
    torch_minimum,
)
from attnforge.model.host import HostCompiler
from attnforge.model.target import Architecture


@pytest.mark.parametrize(
    ("cuda", "architecture", "supported"),
    [
        ("11.8", "9.0", True),
        ("11.8", "90a", False),
        ("12.4", "90a", True),
        ("12.4", "10.0", False),
        ("12.6", "12.0", False),
        ("12.8", "12.0", True),
        ("12.8", "100a", True),
        ("12.8", "100f", False),
        ("12.8", "7.0", True),
        ("12.9", "12.1", True),
        ("13.0", "7.0", False),
        ("13.0", "7.5", True),
        ("13.0", "8.8", True),
        ("13.0.88", "89", True),
        ("13.0", "10.1", False),
        ("13.4", "10.7", True),
        # Newer than the table: as the newest of the same major version.
        ("13.99", "9.0", True),
        # Not in the table and not newer: nothing is known.
        ("12.7", "9.0", False),
        ("10.2", "7.5", False),
        ("14.0", "9.0", False),
        ("", "9.0", False),
        ("thirteen", "9.0", False),
    ],
)
def test_supports(cuda: str, architecture: str, supported: bool) -> None:
    assert supports(cuda, Architecture.parse(architecture)) is supported


@pytest.mark.parametrize(
    ("cuda", "gcc", "clang"), [("11.8", 11, 14), ("12.3", 12, 16), ("12.4", 13, 17), ("13.0", 15, 20)]
)
def test_bounds(cuda: str, gcc: int, clang: int) -> None:
    limits = compiler_limits(cuda)
    assert limits is not None
    assert (limits.bounds("g++")[1], limits.bounds("clang++")[1]) == (gcc, clang)


@pytest.mark.parametrize("cuda", ["12.7", "9.0", "", "x"])
def test_unknown_toolkits_have_no_limits(cuda: str) -> None:
    assert compiler_limits(cuda) is None


@pytest.mark.parametrize(
    ("name", "version", "accepted"),
    [
        ("g++", "12.2.0", True),
        ("g++", "14.1.0", True),
        ("g++", "15.1.0", False),
        ("g++", "8.5.0", False),  # nvcc takes it, PyTorch's headers do not
        ("clang++", "19.1.7", True),
        ("clang++", "20.1.0", False),
        ("g++", "", False),
    ],
)
def test_accepts_what_nvcc_and_the_headers_of_pytorch_take(name: str, version: str, accepted: bool) -> None:
    limits = compiler_limits("12.8")
    assert limits is not None
    assert limits.accepts(HostCompiler(path="/usr/bin/c++", name=name, version=version)) is accepted


def test_rows_are_in_order_and_consistent() -> None:
    versions = [tuple(map(int, limits.cuda.split("."))) for limits in all_limits()]
    assert versions == sorted(set(versions))
    for limits in all_limits():
        for name in ("g++", "clang++"):
            lowest, highest = limits.bounds(name)
            assert lowest < torch_minimum(name) <= highest
            assert limits.torch_max(name) == 0 or torch_minimum(name) <= limits.torch_max(name)
        read = [Architecture.parse(digits) for digits in limits.architectures]
        assert read == sorted(set(read))
        # A suffixed architecture has its plain form beside it.
        assert {(one.major, one.minor) for one in read} == {(one.major, one.minor) for one in read if not one.suffix}


def test_architectures_are_lost_only_with_a_new_major_version() -> None:
    for older, newer in zip(all_limits(), all_limits()[1:], strict=False):
        if older.cuda.split(".")[0] == newer.cuda.split(".")[0]:
            assert set(older.architectures) <= set(newer.architectures)


def test_known_architectures_hold_those_of_every_row() -> None:
    assert {one.digits for one in known_architectures()} == {one for row in all_limits() for one in row.architectures}


@pytest.mark.parametrize(("version", "major"), [("12.2.0", 12), ("9", 9), ("", 0), ("x.1", 0)])
def test_major_version(version: str, major: int) -> None:
    assert major_version(version) == major


@pytest.mark.compile
def test_the_row_of_the_toolkit_that_is_installed_is_what_its_own_files_say() -> None:
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        pytest.skip("no nvcc here")
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release (\d+\.\d+)", told)
    top = subprocess.run([nvcc, "--dryrun", "-E", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=True)
    home = re.search(r"^#\$ TOP=(.+)$", top.stderr, re.MULTILINE)
    assert release is not None
    assert home is not None
    limits = compiler_limits(release[1])
    if limits is None:
        pytest.skip(f"CUDA {release[1]} is not in the table")
    config = Path(home[1], "include/crt/host_config.h").read_text(encoding="utf-8")
    assert set(re.findall(r"__GNUC__ > (\d+)", config)) == {str(limits.max_gcc)}
    assert str(limits.max_clang + 1) in re.findall(r"__clang_major__ >= (\d+)", config)
    codes = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    plain = {digits for digits in limits.architectures if digits.isdecimal()}
    assert set(re.findall(r"sm_(\d+)\b", codes)) == plain
