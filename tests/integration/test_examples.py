"""The examples: linted, and run as far as a machine without that toolkit, Docker and GitHub goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from standins.house import make_toolkit

TOP = Path(__file__).parents[2]
REFERENCE = TOP / "examples" / "reference"
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.compile


@pytest.mark.parametrize(
    "command",
    [
        ("hadolint", REFERENCE / "Dockerfile"),
        ("shellcheck", REFERENCE / "build.sh"),
        ("zizmor", "--offline", "--no-progress", REFERENCE / "github-actions.yaml"),
        ("check-jsonschema", "--builtin-schema", "vendor.github-workflows", REFERENCE / "github-actions.yaml"),
    ],
    ids=lambda command: command[0],
)
def test_examples_are_clean(command: tuple[str | Path, ...]) -> None:
    program, *arguments = command
    done = subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script as its image does, with a CUDA_HOME and nothing else of this machine's."""

    def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": os.pathsep.join((str(PROGRAMS), "/usr/bin", "/bin")),
            "HOME": str(tmp_path),
            "ATTNFORGE_CACHE": str(tmp_path / "cache"),
            "CUDA_HOME": str(home),
            "PIP_NO_INDEX": "1",
            "UV_NO_CONFIG": "1",
            "GIT_ALLOW_PROTOCOL": "none",  # no network: the first that is fetched says so
            "LANG": "C.UTF-8",
        }
        command = [str(REFERENCE / "build.sh"), str(tmp_path / "dist"), *words]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)

    return run


def test_on_a_node_with_the_toolkit_the_script_plans_the_reference_wheels(
    run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_script(make_toolkit(tmp_path / "cuda-12.8", "12.8.93").home, "flash-attn", "flash-attn-3")
    for wheel in (
        "flash_attn-2.7.2-cp311-cp311-linux_x86_64.whl",
        "flashattn_hopper-3.0.0b1-cp311-cp311-linux_x86_64.whl",
    ):
        assert f"wheel      {wheel}" in done.stdout
    # Building begins, and without a network it ends with what could not be fetched.
    assert done.returncode == 3, done.stdout + done.stderr
    assert "github.com/Dao-AILab/flash-attention" in done.stderr
    assert not list(tmp_path.glob("dist/*.whl"))


def test_without_the_toolkit_the_script_says_what_is_fetched(
    run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_script(make_toolkit(tmp_path / "cuda-13.0", "13.0.88").home)
    assert done.returncode == 3
    fetched = "CUDA 12.8.2 (cuda_nvcc, cuda_cudart, cuda_cccl), from NVIDIA: 81.3 MB"
    assert done.stdout.count(fetched) >= 3  # each of the three is planned before any is built
    assert "to fetch in total: about 4.0 GB" in done.stdout
    assert "github.com/Dao-AILab/flash-attention" in done.stderr  # the first that is fetched
