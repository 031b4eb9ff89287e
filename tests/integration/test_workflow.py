"""The workflow from command to wheel, in seconds: stand-ins of PyTorch and nvcc, and real uv, seat, g++ and ld."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from attnforge.model.events import kinds
from standins import house
from standins.forge import PYTHON, TARGET, Forge
from standins.index import serve

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

TAG = f"cp{PYTHON.replace('.', '')}"
LABEL = "cu130torch2.11.sm90"
NAME = f"tinykernels-1.2.0+{LABEL}-{TAG}-{TAG}-linux_x86_64.whl"
UNITS = {"scale.cu": 1, "shift.cu": 1, "total.cu": 1}
RUN = "import tinykernels; print(tinykernels.run(3.0))"
ANSWER = "50.0"  # 2 * (3 + 1), and 42 from the library of PyTorch's


def inside(wheel: Path, ending: str) -> str:
    """Return the text of the one member of a wheel whose name ends so."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(ending)]
        return archive.read(name).decode()


def test_a_folder_becomes_a_wheel_that_installs_and_runs(forge: Forge) -> None:
    done = forge.build(house.tinykernels(forge.folder / "tinykernels")).ok()
    names = [event["event"] for event in done.events]
    assert (names[0], names[-2:]) == ("Planned", ["Finished", "Audited"])
    for event in done.events[1:-1]:
        assert tuple(event)[1:] == kinds()[event["event"]]
    stages = [event["stage"] for event in done.seen("StageFinished")]
    assert stages == ["source", "environment", "toolchain", "compile", "package", "audit"]
    assert forge.toolkit.calls() == UNITS
    (planned,), (audited,) = done.seen("Planned"), done.seen("Audited")
    assert (planned["wheel"], audited["verdict"]) == (NAME, "good")
    assert audited["modules"][0]["architectures"] == ["sm_90"]

    wheel = forge.wheel()
    assert wheel.name == NAME
    assert json.loads(inside(wheel, "/attnforge/provenance.json"))["plan"] == planned["digest"]
    assert "\nRequires-Dist: torch==2.11.*\n" in inside(wheel, "/METADATA")
    report = json.loads(Path(f"{wheel}.report.json").read_text())
    assert report["compile"]["compiled"] == 4
    assert "torch==2.11.0" in report["environment"]
    assert forge.python(forge.install(wheel), RUN) == ANSWER
    assert list(forge.temporary.iterdir()) == []


def test_the_second_build_gives_the_finished_wheel(forge: Forge) -> None:
    source = house.tinykernels(forge.folder / "tinykernels")
    forge.build(source).ok()
    first = forge.wheel().read_bytes()
    shutil.rmtree(forge.out)
    again = forge.build(source).ok()
    assert again.seen("GraphReceived") == []
    assert forge.toolkit.calls() == UNITS
    assert forge.wheel().read_bytes() == first


def test_a_change_of_the_source_is_another_plan(forge: Forge) -> None:
    source = house.tinykernels(forge.folder / "tinykernels")
    first = forge.build(source).ok()
    unit = source / "csrc" / "shift.cu"
    unit.write_text(unit.read_text().replace("value + 1", "value + 2"))
    second = forge.build(source).ok()
    assert first.seen("Planned")[0]["digest"] != second.seen("Planned")[0]["digest"]
    assert forge.python(forge.install(forge.wheel()), RUN) == "52.0"


def test_an_archive_builds_by_main(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    house.archive(house.tinykernels(forge.folder / "project"), forge.folder, "tinykernels-1.2.0")
    monkeypatch.chdir(forge.folder)
    done = forge.main("build", "./tinykernels-1.2.0.tar.gz", *TARGET).ok()
    assert "compile: 4 to compile, 0 available, 0 left out" in done.out
    assert forge.python(forge.install(forge.wheel()), RUN) == ANSWER


def test_a_version_from_an_index(forge: Forge, tmp_path: Path) -> None:
    sdist = house.archive(house.tinykernels(tmp_path / "project"), tmp_path / "sdists", "tinykernels-1.2.0")
    with serve(sdist, forge.wheels) as index:
        settings = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": index.url}
        done = forge.build("tinykernels==1.2.0", **settings).ok()
    assert done.seen("Planned")[0]["source"]["kind"] == "sdist"
    assert forge.wheel().name == NAME


def test_options_come_from_three_places(forge: Forge) -> None:
    """The command line wins over the environment, that over the project's file."""
    source = house.tinykernels(forge.folder / "tinykernels")
    (forge.folder / "pyproject.toml").write_text(
        f"""[tool.attnforge]
gpu = ["H100"]
torch = "2.11.0"
python = "{PYTHON}"
toolchain = "system"
jobs = 2
label = "from.file"
out = "wheels"
"""
    )
    environ = {"ATTNFORGE_LABEL": "from.env", "ATTNFORGE_GPU": "L40S"}
    done = forge.run("build", source, "--json", "--label", "from.command", **environ)
    planned = done.ok().seen("Planned")[0]
    assert planned["target"]["gpus"] == [{"name": "L40S", "capability": "8.9"}]
    assert planned["label"] == "from.command"
    assert [path.name for path in (forge.folder / "wheels").glob("*.whl")] == [planned["wheel"]]
    by_environment = forge.run("build", source, "--plain", ATTNFORGE_OUT="elsewhere", ATTNFORGE_GPU="L40S").ok()
    assert "tinykernels-1.2.0+from.file" in by_environment.out
    assert list((forge.folder / "elsewhere").glob("*.whl"))
    assert not forge.out.exists()


def test_the_same_plan_gives_the_same_bytes_anywhere(forge: Forge, awkward: Forge) -> None:
    """Also where source, cache, toolkit and output lie in folders with spaces and letters outside ASCII."""
    one = forge.build(house.tinykernels(forge.folder / "tinykernels")).ok()
    other = awkward.build(
        house.tinykernels(awkward.folder / "tinykernels"), "--out", awkward.folder / "für später"
    ).ok()
    assert one.seen("Planned")[0]["digest"] == other.seen("Planned")[0]["digest"]
    assert awkward.toolkit.calls() == UNITS
    (wheel,) = (awkward.folder / "für später").glob("*.whl")
    assert wheel.read_bytes() == forge.wheel().read_bytes()


def test_a_path_as_a_user_writes_it(awkward: Forge) -> None:
    house.tinykernels(awkward.folder / "kleine Kerne ß")
    awkward.build("./kleine Kerne ß").ok()
    assert awkward.python(awkward.install(awkward.wheel()), RUN) == ANSWER


@pytest.mark.parametrize(
    ("setup", "stated"),
    [
        ('version=open("VERSION").read().strip()', "9.4"),
        ('version=__import__("os").environ.get("VERSION", "9.5")', "9.5"),
    ],
)
def test_a_version_that_only_the_build_knows(forge: Forge, setup: str, stated: str) -> None:
    source = house.tinykernels(forge.folder / "tinykernels")
    (source / "VERSION").write_text("9.4\n")
    text = (source / "setup.py").read_text()
    (source / "setup.py").write_text(text.replace('version="1.2.0"', setup))
    done = forge.build(source).ok()
    assert forge.wheel().name == NAME.replace("1.2.0", stated)
    assert done.seen("Audited")[0]["verdict"] == "good"
    assert f"\nVersion: {stated}+{LABEL}\n" in inside(forge.wheel(), "/METADATA")


def test_audits(forge: Forge) -> None:
    forge.build(house.tinykernels(forge.folder / "tinykernels")).ok()
    wheel = forge.wheel()
    python = str(forge.install(wheel))
    # Held against an interpreter's PyTorch, and against the one that the plan inside names.
    for options in (["--python", python], []):
        audited = forge.run("audit", wheel, "--json", *options).ok()
        document = json.loads(audited.out)
        assert (document["verdict"], document["undefined"]) == ("good", [])
        assert document["coverage"]["architectures"] == ["sm_90"]

    # A wheel without a plan says nothing of the PyTorch that it is for.
    (upstream,) = forge.cache.glob("builds/*/upstream/*.whl")
    unknown = forge.run("audit", upstream, "--json")
    assert (unknown.code, json.loads(unknown.out)["verdict"]) == (6, "unchecked")
    assert forge.run("audit", upstream, "--torch", "2.11.0").ok()
    # The worst of several counts, and bad is worse than unchecked.
    broken = forge.folder / wheel.name
    broken.write_bytes(wheel.read_bytes()[:-200])
    assert forge.run("audit", wheel, upstream).code == 6
    assert forge.run("audit", broken).code == 5
    assert forge.run("audit", wheel, "--python", "/usr/bin/env").code == 3


def flash_call(forge: Forge, python: Path, *arguments: Any) -> str:
    """Return which kernel computed a call, or what it raised."""
    code = f"""
import flash_attn
try:
    print(flash_attn.call(*{arguments!r}))
except RuntimeError as error:
    print("raised:", error)
"""
    return forge.python(python, code)


def test_a_recipe_keeps_what_a_profile_asks_for(forge: Forge) -> None:
    source = house.flash_attn(forge.folder / "flash-attention")
    done = forge.build(source, "--profile", "diffusion", "--head-dims", "64").ok()
    (graph,), (audited,) = done.seen("GraphReceived"), done.seen("Audited")
    assert (graph["units"], graph["compile"], graph["merged"], graph["empty"]) == (73, 2, 3, 68)
    wheel = forge.wheel()
    assert wheel.name.startswith(f"flash_attn-2.8.3+{LABEL}.diffusion.hd64-")
    assert audited["verdict"] == "good"
    (module,) = audited["modules"]
    assert module["architectures"] == ["sm_90"]
    assert module["kernels"] == [{"head_dim": 64, "dtype": dtype, "count": 2} for dtype in ("bf16", "fp16")]

    python = forge.install(wheel)
    assert flash_call(forge, python, "forward", 64, "fp16", True, "") == "forward 64 fp16 causal"
    # Upstream's heuristic sends calls with few heads to kernels that this wheel lacks.
    assert flash_call(forge, python, "split", 64, "bf16", False, "") == "forward 64 bf16"
    for feature in ("alibi", "softcap", "dropout", "local"):
        assert f"without {feature}" in flash_call(forge, python, "forward", 64, "fp16", False, feature)
    assert "without split" in flash_call(forge, python, "split", 64, "fp16", False, "paged")
    assert "without backward" in flash_call(forge, python, "backward", 64, "fp16", False, "")
    for head_dim in (32, 96, 128, 192, 256):
        raised = flash_call(forge, python, "forward", head_dim, "fp16", False, "")
        assert f"--head-dims 64,{head_dim}" in raised


def test_what_is_asked_for_in_addition_is_there(forge: Forge) -> None:
    source = house.flash_attn(forge.folder / "flash-attention")
    options = ("--without", "dropout", "--dtypes", "bf16", "--head-dims", "64")
    forge.build(source, *options).ok()
    python = forge.install(forge.wheel())
    for kind in ("forward", "split", "backward"):
        assert flash_call(forge, python, kind, 64, "bf16", True, "") == f"{kind} 64 bf16 causal"
        assert "without dropout" in flash_call(forge, python, kind, 64, "bf16", False, "dropout")
        for feature in ("alibi", "softcap", "local"):
            assert flash_call(forge, python, kind, 64, "bf16", False, feature) == f"{kind} 64 bf16"
    assert flash_call(forge, python, "split", 64, "bf16", False, "paged") == "split 64 bf16"
    assert "in fp16" in flash_call(forge, python, "forward", 64, "fp16", False, "")


def test_upstream_never_sees_what_could_change_its_build(forge: Forge) -> None:
    """A user's settings for compilers and for upstream's own downloads do not reach it; the wheel is the same."""
    source = house.tinykernels(forge.folder / "tinykernels")
    seen = forge.folder / "seen"
    text = (source / "setup.py").read_text()
    (source / "setup.py").write_text(f"import json, os\njson.dump(dict(os.environ), open({str(seen)!r}, 'w'))\n{text}")
    noise = {"CFLAGS": "-DX", "NVCC_APPEND_FLAGS": "-DX", "PYTHONPATH": "/nowhere", "MAX_JOBS": "64", "SECRET": "x"}
    forge.build(source, **noise).ok()
    environ = json.loads(seen.read_text())
    assert not {"CFLAGS", "NVCC_APPEND_FLAGS", "SECRET"} & set(environ)
    assert "/nowhere" not in environ["PYTHONPATH"]
    assert environ["MAX_JOBS"] == "2"
    assert environ["TORCH_CUDA_ARCH_LIST"] == "9.0"
    assert Path(environ["PATH"].split(os.pathsep)[0]).name == "seat"


def test_a_build_is_checked_as_far_as_this_machine_can(forge: Forge) -> None:
    done = forge.build(house.tinykernels(forge.folder / "tinykernels"), "--check")
    assert done.code == 6
    assert done.events[-1]["event"] == "Checked"
    checked = json.loads(Path(f"{forge.wheel()}.check.json").read_text())
    assert {"event": "Checked", **checked} == done.events[-1]
    # In an environment of its own, from the folder of wheels; its modules were imported there.
    assert (checked["torch"], checked["verdict"]) == ("2.11.0+cu130", "unchecked")
    codes = {finding["code"]: finding["seen"] for finding in checked["findings"]}
    assert codes["import"] == "tinykernels._C"
    assert "no-cases" in codes
    assert not list(forge.cache.glob("environments/trial-*"))
