"""The main job for real: FlashAttention 2 from its sdist, with the toolchain of the package index."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from attnforge.wheelfile.embedded import read_universal
from standins.independent import confirm
from standins.real import PYTHON, attnforge, install, printed

pytestmark = [pytest.mark.compile, pytest.mark.network]

# The smallest build of the kind that the README shows, of the version that it means: one dtype of one head dimension.
COMMAND = [
    "build",
    "flash-attn",
    "--gpu",
    "H100",
    "--profile",
    "diffusion",
    "--head-dims",
    "64",
    "--dtypes",
    "fp16",
]
LABEL = "2.8.3.post2+cu130torch2.11.sm90.diffusion.hd64.fp16"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for both tests: the second finds kernels that the first has compiled, or compiles them itself."""
    return tmp_path_factory.mktemp("cache")


def test_one_command_makes_a_wheel_that_installs_imports_and_is_good(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "dist"
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
    kernels = {name for one in confirm(wheel).modules for name in one.kernels}
    assert kernels and all(
        "kernel_traitsILi64E" in name and "half_t" in name for name in kernels if "flash_fwd" in name
    )

    # A clean environment, with nothing but the wheel and what it requires.
    interpreter = install(cache, tmp_path / "clean", str(wheel))
    code = "import torch, flash_attn, flash_attn_2_cuda as c; print(flash_attn.__version__, callable(c.fwd))"
    assert printed(interpreter, code).split()[:2] == ["2.8.3.post2", "True"]
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


UNIVERSAL = [*COMMAND, "--universal", "--python", PYTHON, "--toolchain", "pypi", "--json"]


def test_one_wheel_for_several_pytorch_is_extended_without_a_kernel(cache: Path, tmp_path: Path) -> None:
    done = attnforge(cache, *UNIVERSAL, "--torch", "2.11", "--out", str(tmp_path / "one"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (first,) = (tmp_path / "one").glob("*-py3-none-linux_x86_64.whl")

    done = attnforge(cache, "extend", str(first), "--torch", "2.12", "--out", str(tmp_path / "two"), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["torch"] for event in events if event["event"] == "PairFinished"] == ["2.12.1"]
    (second,) = (tmp_path / "two").glob("*.whl")
    report = json.loads((tmp_path / "two" / f"{second.name}.report.json").read_text())
    assert report["audit"]["verdict"] == "good"
    library = next(module for module in report["audit"]["modules"] if "/lib" in module["path"])
    assert library["architectures"] == ["sm_90"]
    assert not [name for name in library["needed"] if "torch" in name or "python" in name or "cudart" in name]
    for wheel in (first, second):
        assert confirm(wheel).code == {"sm_90"}

    # What one build of both makes, to the byte; and the first wheel's code is in it as it was.
    done = attnforge(cache, *UNIVERSAL, "--torch", "2.11,2.12", "--out", str(tmp_path / "both"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (both,) = (tmp_path / "both").glob("*.whl")
    assert both.name == second.name and both.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as old, zipfile.ZipFile(second) as new:
        for path in (path for path in old.namelist() if path.endswith(".so")):
            assert new.read(path) == old.read(path)

    for torch in ("2.11.0", "2.12.1"):
        interpreter = install(cache, tmp_path / torch, f"torch=={torch}", str(second))
        found = printed(interpreter, "import flash_attn, flash_attn_2_cuda as c; print(c.fwd and c.__file__)")
        assert f"/torch{torch.rpartition('.')[0]}/" in found
    _check_other_torch(interpreter, tmp_path, second)


def _check_other_torch(interpreter: str, folder: Path, wheel: Path) -> None:
    """With a PyTorch that the wheel does not hold, the import says what to do. A stand-in is enough to be refused."""
    stand_in = folder / "stand-in" / "torch"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("from . import version\n__version__ = '2.13.0+cu130'\n")
    (stand_in / "version.py").write_text("cuda = '13.0'\n")
    code = f"import sys; sys.path.insert(0, {str(stand_in.parent)!r}); import flash_attn_2_cuda"
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True)
    assert "ImportError: flash_attn_2_cuda can't be loaded" in done.stderr
    assert f"attnforge extend {wheel.name} --torch 2.13 --python {PYTHON}" in done.stderr
    universal = read_universal(wheel)
    assert universal is not None
    assert [str(pair) for pair in universal.pairs] == [
        f"PyTorch {minor}, Python {PYTHON}" for minor in ("2.11", "2.12")
    ]
