"""The main job for real: FlashAttention 2 from its sdist, with the toolchain of the package index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from standins.real import PYTHON, attnforge, install, printed

pytestmark = [pytest.mark.compile, pytest.mark.network]

# The smallest build of the kind that the README shows: one dtype of one head dimension.
COMMAND = [
    "build",
    "flash-attn==2.8.3",
    "--gpu",
    "H100",
    "--profile",
    "diffusion",
    "--head-dims",
    "64",
    "--dtypes",
    "fp16",
]
LABEL = "2.8.3+cu130torch2.11.sm90.diffusion.hd64.fp16"


def test_one_command_makes_a_wheel_that_installs_imports_and_is_good(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "dist"
    choice = ["--torch", "2.11.0", "--python", PYTHON, "--toolchain", "pypi"]
    done = attnforge(cache, *COMMAND, *choice, "--out", str(out), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    planned = events[0]
    assert planned["wheel"].startswith(f"flash_attn-{LABEL}-cp")
    assert planned["toolchain"]["origin"] == "pypi"
    graph = next(event for event in events if event["event"] == "GraphReceived")
    # On one processor the two units of kernels are merged, on two they are not.
    assert (graph["units"], graph["compile"] + graph["merged"], graph["empty"]) == (73, 3, 70)
    peaks = [event["used_bytes"] for event in events if event["event"] == "Progress"]
    budgets = {event["budget_bytes"] for event in events if event["event"] == "Progress"}
    assert max(peaks) <= min(budgets)

    (wheel,) = out.glob("*.whl")
    report = json.loads((out / f"{wheel.name}.report.json").read_text())
    assert report["audit"]["verdict"] == "good"
    (module,) = report["audit"]["modules"]
    assert module["architectures"] == ["sm_90"]
    assert {(k["head_dim"], k["dtype"]) for k in module["kernels"]} == {(64, "fp16")}
    assert report["audit"]["undefined"] == []

    # A clean environment, with nothing but the wheel and what it requires.
    interpreter = install(cache, tmp_path / "clean", str(wheel))
    code = "import torch, flash_attn, flash_attn_2_cuda as c; print(flash_attn.__version__, callable(c.fwd))"
    assert printed(interpreter, code).split()[:2] == ["2.8.3", "True"]
    assert printed(interpreter, "import importlib.metadata as m; print(m.version('flash-attn'))") == LABEL

    # The same command again compiles nothing, and gives the same bytes.
    first = wheel.read_bytes()
    again = attnforge(cache, *COMMAND, *choice, "--out", str(tmp_path / "again"), "--json")
    assert again.returncode == 0
    assert not any(json.loads(line)["event"] == "JobStarted" for line in again.stdout.splitlines())
    assert (tmp_path / "again" / wheel.name).read_bytes() == first

    # A stranger's audit: the plan inside says which PyTorch to hold it against.
    audited = attnforge(cache, "audit", str(wheel), "--json")
    assert audited.returncode == 0
    assert json.loads(audited.stdout)["coverage"]["dtypes"] == ["fp16"]
