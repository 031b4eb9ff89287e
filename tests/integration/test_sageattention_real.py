"""SageAttention 2.2.0's build for real, on the stand-in: one wheel for L40S and H100, without a GPU or a driver.

Upstream's own source could not be had where these tests were written. The stand-in (standins/sageattention) has its
build interface around kernels of our own, and is served from a git repository that is made on the spot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from standins.independent import confirm
from standins.real import PYTHON, attnforge, install, printed

pytestmark = [
    pytest.mark.compile,
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine"),
]

STAND_IN = Path(__file__).parents[1] / "standins" / "sageattention"
TARGET = ["--torch", "2.11.0", "--python", PYTHON]
SLOTS = 2
IMPORT = """\
import importlib, torch, sageattention
for name in ("_fused", "_qattn_sm80", "_qattn_sm89", "_qattn_sm90"):
    try:
        print(importlib.import_module(f"sageattention.{name}").__name__)
    except ImportError as error:
        print(name, error)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for these builds: the environment is made once, and kernels are compiled once."""
    return tmp_path_factory.mktemp("sage") / "cache"


def git(folder: Path, *words: str) -> str:
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, **identity}
    done = subprocess.run(["git", *words], cwd=folder, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The stand-in, committed as a later commit that is built from TORCH_CUDA_ARCH_LIST, and as the tag v2.2.0, which
    is built for the GPUs that the machine has."""
    folder = tmp_path / "SageAttention"
    shutil.copytree(STAND_IN, folder)
    git(folder, "init", "--quiet")
    for mode, name in (("tag", "v2.2.0"), ("later", "later")):
        (folder / "build_mode.txt").write_text(f"{mode}\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--allow-empty", "--message", mode)
        git(folder, "tag", name)
    return folder


def build(cache: Path, repository: Path, ref: str, *gpus: str, out: Path) -> list[dict[str, Any]]:
    source = f"git+{repository.as_uri()}@{ref}"
    words = ["sageattention==2.2.0", "--source", source, "--gpu", ",".join(gpus), *TARGET, "--jobs", str(SLOTS)]
    done = attnforge(cache, "build", *words, "--out", str(out), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def code_of(report: dict[str, Any]) -> dict[str, list[str]]:
    """The machine code of each module, by its name."""
    modules = report["audit"]["modules"]
    return {Path(module["path"]).name.partition(".")[0]: module["architectures"] for module in modules}


def running(events: list[dict[str, Any]]) -> Iterator[int]:
    """Yield how many compiles run at once, after each that begins."""
    slots: set[int] = set()
    for event in events:
        if event["event"] == "JobStarted":
            assert event["slot"] not in slots
            slots.add(event["slot"])
            yield len(slots)
        elif event["event"] == "JobFinished":
            slots.remove(event["slot"])


def test_one_wheel_serves_both_gpus(cache: Path, repository: Path, tmp_path: Path) -> None:
    events = build(cache, repository, "later", "L40S", "H100", out=tmp_path / "dist")
    # Four extensions call ninja at once, and one scheduler with one budget serves them all.
    kinds = [event["event"] for event in events]
    units = [event["units"] for event in events if event["event"] == "GraphReceived"]
    assert sorted(units) == [2, 2, 2, 5]
    latest = max(at for at, kind in enumerate(kinds) if kind == "GraphReceived")
    # One after the other, three graphs of two units at least would be done before the fourth comes.
    assert kinds[:latest].count("UnitFinished") < 6
    assert max(running(events)) == SLOTS
    progress = [event for event in events if event["event"] == "Progress"]
    assert len({event["budget_bytes"] for event in progress}) == 1
    assert all(event["used_bytes"] <= event["budget_bytes"] for event in progress)

    commit = git(repository, "rev-parse", "later")
    tag = f"cp{PYTHON.replace('.', '')}"
    name = f"sageattention-2.2.0+cu130torch2.11.sm89.sm90a.g{commit[:8]}-{tag}-{tag}-linux_x86_64.whl"
    wheel = tmp_path / "dist" / name
    report = json.loads((tmp_path / "dist" / f"{name}.report.json").read_text())
    assert report["audit"]["verdict"] == "good"
    both = ["sm_89", "sm_90a"]
    assert code_of(report) == {"_fused": both, "_qattn_sm80": both, "_qattn_sm89": both, "_qattn_sm90": ["sm_90a"]}

    found = {Path(one.path).name.partition(".")[0]: sorted(one.code) for one in confirm(wheel).modules}
    assert found == code_of(report)

    # The stub that -lcuda was linked against stayed here; the module asks for the driver's own.
    (hopper,) = [one for one in report["audit"]["modules"] if "_qattn_sm90" in one["path"]]
    assert "libcuda.so.1" in hopper["needed"]
    assert not hopper["rpath"]
    with zipfile.ZipFile(wheel) as archive:
        assert not [member for member in archive.namelist() if "libcuda" in member]

    interpreter = install(cache, tmp_path / "clean", str(wheel), "torch==2.11.0", "numpy")
    *lines, last = printed(interpreter, IMPORT).splitlines()
    assert lines == ["sageattention._fused", "sageattention._qattn_sm80", "sageattention._qattn_sm89"]
    # Where there is no driver, this is all that is missing.
    without = "_qattn_sm90 libcuda.so.1: cannot open shared object file: No such file or directory"
    assert last in ("sageattention._qattn_sm90", without)


def test_the_tag_which_asks_for_gpus_sees_those_of_the_target(cache: Path, repository: Path, tmp_path: Path) -> None:
    events = build(cache, repository, "v2.2.0", "L40S", "RTX 5090", out=tmp_path / "dist")
    (report,) = [json.loads(path.read_text()) for path in (tmp_path / "dist").glob("*.report.json")]
    assert report["audit"]["verdict"] == "good"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert confirm(wheel).code == {"sm_89", "sm_120a"}
    both = ["sm_89", "sm_120a"]
    assert {name: sorted(code) for name, code in code_of(report).items()} == dict.fromkeys(
        ("_fused", "_qattn_sm80", "_qattn_sm89"), sorted(both)
    )
    assert [event["event"] for event in events].count("GraphReceived") == 3


def test_a_source_that_gives_noise_on_9_0_is_refused_before_anything_is_made(cache: Path, repository: Path) -> None:
    fake = '@register_fake("sage::attention")\ndef attention(query): ...\n'
    (repository / "sageattention" / "sm90_compile.py").write_text(fake)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "noise")
    words = ["sageattention==2.2.0", "--source", f"git+{repository.as_uri()}", "--gpu", "L40S,H100", *TARGET]
    done = attnforge(cache, "build", *words)
    assert done.returncode == 2, done.stderr
    assert "launches no kernel" in done.stderr


def test_a_commit_that_is_not_there_is_said_before_anything_is_made(cache: Path, repository: Path) -> None:
    source = f"git+{repository.as_uri()}@{'0' * 39}1"
    words = ["sageattention==2.2.0", "--source", source, "--gpu", "L40S", *TARGET]
    done = attnforge(cache, "build", *words)
    assert done.returncode in (2, 3), done.stderr
    assert f"{'0' * 39}1" in done.stderr
    assert "environment" not in done.stdout
