"""Checks with a real PyTorch on the processor: stand-ins that are right pass, and what is wrong is found by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnforge import Machine
from attnforge.model.check import CheckReport
from attnforge.workflow.checking import check
from standins.attention.wheels import MUTANTS, Mutant, pack, pack_mutant

pytestmark = pytest.mark.network

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def machine() -> Machine:
    return Machine(os.environ)


@pytest.fixture(scope="session")
def python(machine: Machine) -> str:
    """An interpreter with PyTorch, and with nothing else that a wheel could need."""
    return str(machine.environment(PYTHON, "2.11.0", "13.0", ()).python)


def run(machine: Machine, python: str, wheel: Path, only: tuple[str, ...], timeout: float = 120) -> CheckReport:
    return check(machine, wheel, python=python, quick=True, only=only, timeout=timeout, device="cpu")


TOPICS = {
    "flash-attn": ("strided", "softcap", "alibi", "paged", "append", "dropout", "left-out", "compile"),
    "sageattention": ("strided", "compile"),
}


@pytest.mark.parametrize("package", TOPICS)
def test_what_is_right_passes(machine: Machine, python: str, tmp_path: Path, package: str) -> None:
    wheel = pack(tmp_path, package=package, left_out=("alibi",) if package == "flash-attn" else ())
    report = run(machine, python, wheel, TOPICS[package])
    assert report.verdict == "good", report.findings
    assert not [one for one in report.findings if one.severity.value == "warning"]
    assert report.smoke == "output = torch.Size([2, 4, 128, 64])"
    statuses = {result.topic: result.status for result in report.results}
    assert statuses["strided"] == statuses["compile"] == "passed"
    if package == "flash-attn":
        assert statuses["paged"] == statuses["append"] == statuses["dropout"] == "passed"
        assert statuses["alibi"] == statuses["left-out"] == "raised"
        assert all(result.figures["bound"] > 0 for result in report.results if result.topic == "softcap")


# One of each sort; `python -m standins.attention.wheels` makes all of them, for a machine with a GPU.
CHOSEN = {
    "unwritten-row": "compile",
    "wrong-scale": "cache",
    "ignores-softcap": "softcap",
    "ignores-window": "window",
    "raises-for-softcap": "softcap",
    "wrong-gradient": "backward",
    "silent": "softcap",
    "hangs": "compile",
    "crashes": "compile",
    "wrong-architecture": "compile",
}


def mutant(name: str) -> Mutant:
    return next(one for one in MUTANTS if one.name == name)


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_wrong_is_found_by_name(machine: Machine, python: str, tmp_path: Path, name: str) -> None:
    wrong = mutant(name)
    wheel = pack_mutant(tmp_path, wrong)
    report = run(machine, python, wheel, (CHOSEN[name],), timeout=1 if name == "hangs" else 120)
    found = [(one.severity.value, one.code) for one in report.findings]
    assert (wrong.severity, wrong.code) in found, report.findings
    assert report.exit_code == 5


def test_the_command_without_a_gpu_exits_6(python: str, tmp_path: Path) -> None:
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "attnforge", "check", str(pack(tmp_path)), "--python", python]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 6
    assert "torch sees no GPU" in done.stdout
