"""Checks with a real PyTorch on the processor: stand-ins that are right pass, and what is wrong is found by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import attnforge
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
    "flash-attn": ("strided", "softcap", "alibi", "paged", "append", "dropout", "left-out", "errors", "compile"),
    "flash-attn-4": ("strided", "softcap", "window", "varlen", "backward"),
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
    assert {statuses[topic] for topic in TOPICS[package] if topic not in ("alibi", "left-out", "errors")} == {"passed"}
    if package == "flash-attn":
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
    "dies-of-errors": "errors",
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


# In the interpreter with PyTorch, for which ongpu/ is written: the reference against one line by line, in float64.
REFERENCE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from ongpu import reference

torch.manual_seed(0)
for rows, columns, causal, window, softcap in [
    (9, 12, False, (2, 1), 0.0), (12, 9, True, (-1, -1), 0.0), (7, 7, True, (3, -1), 1.5), (5, 0, False, (-1, -1), 0.0),
]:
    q = torch.randn(2, rows, 4, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, columns, 2, 8, dtype=torch.float64) for _ in range(2))
    slopes = torch.rand(4, dtype=torch.float64)
    out = reference.attention(
        q, k, v, causal=causal, window=window, softcap=softcap, alibi=slopes, dtype=torch.float64, slice_bytes=2000
    )
    for b in range(2):
        for h in range(4):
            for i in range(rows):
                here = i + columns - rows
                left = here - window[0] if window[0] >= 0 else 0
                right = here if causal else here + window[1] if window[1] >= 0 else columns
                seen = [j for j in range(columns) if left <= j <= right]
                scores = torch.tensor([float(q[b, i, h] @ k[b, j, h // 2]) * 8**-0.5 for j in seen])
                scores = scores.double()
                if softcap:
                    scores = softcap * torch.tanh(scores / softcap)
                scores = scores - slopes[h] * torch.tensor([abs(here - j) for j in seen]).double()
                expected = torch.softmax(scores, 0) @ v[b, seen, h // 2] if seen else torch.zeros(8).double()
                assert (out[b, i, h] - expected).abs().max() < 1e-6, (rows, columns, b, h, i)
    out.sum().backward()
    assert torch.isfinite(q.grad).all()

one = torch.ones(3)
assert reference.judge("flash2", one, one, one)["ok"]
assert not reference.judge("flash2", one * float("nan"), one, one)["ok"]
assert not reference.judge("quantized", torch.ones(2, 4), one)["ok"]
assert not reference.judge("quantized", one * 1.06, one)["ok"]
print("right")
"""


def test_the_reference_is_attention(python: str, tmp_path: Path) -> None:
    # Only this package is to be found, not all of attnforge beside it.
    (tmp_path / "ongpu").symlink_to(Path(attnforge.__file__).parent / "ongpu")
    done = subprocess.run([python, "-c", REFERENCE, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "right\n", done.stderr
