from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import BuildError
from attnforge.model.plan import UNSTATED, BuildPlan
from attnforge.package.archive import Member, read_members, write_wheel
from attnforge.package.metadata import name_and_version, relabel, torch_conflicts
from attnforge.package.wheel import package_wheel, torch_warnings

METADATA = """\
Metadata-Version: 2.4
Name: flash_attn
Version: 2.8.3
Requires-Dist: torch
Requires-Dist: einops
Requires-Dist: torch-geometric; extra == "x"

Version: 9 is not a header in the description
Requires-Dist: torch
"""
INFO = "flash_attn-2.8.3.dist-info"


def upstream(
    folder: Path,
    *,
    version: str = "2.8.3",
    tags: str = "cp312-cp312-linux_x86_64",
    module: bool | bytes = True,
    metadata: str = METADATA,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    info = f"flash_attn-{version}.dist-info"
    path = folder / f"flash_attn-{version}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flash_attn/__init__.py", "__version__ = '2.8.3'\n")
        if module:
            image = module if isinstance(module, bytes) else b"\x7fELF..."
            archive.writestr(zipfile.ZipInfo("flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so"), image)
        for name, data in (more or {}).items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", metadata.replace("Version: 2.8.3", f"Version: {version}"))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tags}\n")
        archive.writestr(f"{info}/RECORD", "stale,,\n")
    return path


def test_the_wheel_has_the_plans_name_and_its_metadata_agrees(
    tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    plan = make_plan(profile="diffusion")
    wheel = package_wheel(upstream(tmp_path), tmp_path / ".", plan, "attnforge 1")
    assert wheel.name == plan.wheel
    with zipfile.ZipFile(wheel) as archive:
        info = f"flash_attn-2.8.3+{plan.label}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert name_and_version(metadata) == ("flash_attn", f"2.8.3+{plan.label}")
        assert "Requires-Dist: torch==2.11.*\nRequires-Dist: einops" in metadata
        assert "torch-geometric" in metadata
        assert metadata.endswith("Version: 9 is not a header in the description\nRequires-Dist: torch\n")
        assert BuildPlan.model_validate(json.loads(archive.read(f"{info}/attnforge/plan.json"))) == plan
        coverage = json.loads(archive.read(f"{info}/attnforge/coverage.json"))
        assert coverage["left_out"] == list(plan.selection.without)
        provenance = json.loads(archive.read(f"{info}/attnforge/provenance.json"))
        assert provenance["plan"] == plan.digest
        assert provenance["source"]["sha256"] == plan.source.sha256


def test_record_lists_every_member_with_its_hash(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    wheel = package_wheel(upstream(tmp_path), tmp_path, make_plan(), "attnforge 1")
    with zipfile.ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith("RECORD"))
        assert archive.namelist()[-1] == record
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        assert set(rows) == set(archive.namelist())
        for name, (digest, size) in rows.items():
            if name != record:
                data = archive.read(name)
                expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={expected}", str(len(data)))


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        made.append(package_wheel(upstream(folder), folder, make_plan(), "attnforge 1").read_bytes())
    assert made[0] == made[1]


def test_without_a_label_upstreams_name_stays(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    (tmp_path / "out").mkdir()
    plan = make_plan(label="none")
    assert package_wheel(upstream(tmp_path), tmp_path / "out", plan, "x").name == upstream(tmp_path).name


def test_a_pure_python_wheel_keeps_its_tags_and_its_requirements(
    tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    source = upstream(tmp_path, tags="py3-none-any", module=False)
    wheel = package_wheel(source, tmp_path, make_plan(), "x")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(archive.read(name) for name in archive.namelist() if name.endswith("METADATA"))
    assert b"Requires-Dist: torch\n" in metadata


def test_another_version_than_planned_is_an_error(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    with pytest.raises(BuildError, match="made version 2.9.0"):
        package_wheel(upstream(tmp_path, version="2.9.0"), tmp_path, make_plan(), "x")


def test_a_version_that_only_the_build_could_say_is_upstreams(
    tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    plan = make_plan().model_copy(update={"version": UNSTATED})
    assert package_wheel(upstream(tmp_path, version="2.9.0"), tmp_path, plan, "x").name.startswith("flash_attn-2.9.0+")


def test_what_is_no_wheel_is_an_error(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    path = tmp_path / "flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(BuildError, match="no wheel"):
        package_wheel(path, tmp_path, make_plan(), "x")


names = st.text(st.characters(min_codepoint=48, max_codepoint=122, categories=("L", "N")), min_size=1, max_size=12)


@given(st.dictionaries(names, st.tuples(st.binary(max_size=200), st.booleans()), max_size=8))
def test_what_is_written_is_read_again_whatever_the_order(files: dict[str, tuple[bytes, bool]]) -> None:
    import tempfile

    members = {f"p/{name}": Member(data, executable) for name, (data, executable) in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "a.whl", Path(folder) / "b.whl"
        write_wheel(one, members, "p-1.dist-info")
        write_wheel(other, dict(reversed(members.items())), "p-1.dist-info")
        assert one.read_bytes() == other.read_bytes()
        again = read_members(one)
        assert {name: member for name, member in again.items() if name != "p-1.dist-info/RECORD"} == members


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    class Broken(bytes):
        def __len__(self) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_wheel(tmp_path / "a.whl", {"x": Member(Broken(b"abc"))}, "x-1.dist-info")
    assert list(tmp_path.iterdir()) == []


OURS = "Requires-Dist: torch==2.11.*"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # Upstream asks for it plainly: one requirement, and what it asks beyond ours stays.
        (["Requires-Dist: torch"], [OURS]),
        (["Requires-Dist: torch>=2.0"], [OURS]),
        (["Requires-Dist: Torch (>=2.0,<3)"], [OURS]),
        (["Requires-Dist: torch<2.12"], [OURS]),
        (["Requires-Dist: torch!=2.11.1"], ["Requires-Dist: torch!=2.11.1,==2.11.*"]),
        (["Requires-Dist: torch!=2.10.*,!=2.9.1"], ["Requires-Dist: torch!=2.10.*,==2.11.*"]),
        (["Requires-Dist: torch<2.11.2"], ["Requires-Dist: torch<2.11.2,==2.11.*"]),
        (["Requires-Dist: torch==2.11.0"], ["Requires-Dist: torch==2.11.*,==2.11.0"]),
        (["Requires-Dist: torch[opt]>=2.11"], ["Requires-Dist: torch[opt]==2.11.*"]),
        (["Requires-Dist: torch", "Requires-Dist: einops", "Requires-Dist: torch>=2"], [OURS, "Requires-Dist: einops"]),
        # The wheel's own PyTorch does not meet it: ours alone; torch_warnings reports the conflict.
        (["Requires-Dist: torch<2.9"], [OURS]),
        # Upstream forgets it, or asks for it in some cases alone: the modules need it always.
        ([], [OURS]),
        (["Requires-Dist: torchvision"], ["Requires-Dist: torchvision", OURS]),
        (["Requires-Dist: torch; extra == 'gpu'"], ["Requires-Dist: torch; extra == 'gpu'", OURS]),
        (["Requires-Dist: not a requirement!"], ["Requires-Dist: not a requirement!", OURS]),
        (["Summary: torch"], ["Summary: torch", OURS]),
        # An address of upstream's is taken as it is: a second requirement would not install beside it.
        (["Requires-Dist: torch @ file:///x.whl"], ["Requires-Dist: torch @ file:///x.whl"]),
    ],
)
@pytest.mark.parametrize("ending", ["", "\n", "\n\nRequires-Dist: torch\n"])
def test_modules_always_ask_for_their_pytorch(lines: list[str], expected: list[str], ending: str) -> None:
    head = ["Name: it", *lines]
    assert relabel("\n".join(head) + ending, "1", "==2.11.*", "2.11.0") == "\n".join(["Name: it", *expected]) + ending
    windows = "\r\n".join(head) + ending.replace("\n", "\r\n")
    assert relabel(windows, "1", "==2.11.*", "2.11.0") == "\n".join(["Name: it", *expected]) + ending


@pytest.mark.parametrize(
    ("asked", "torches", "conflict"),
    [
        ("torch", ["2.11.0"], ()),
        ("torch>=2.4,<3", ["2.11.0", "2.13.0"], ()),
        ("torch<2.9", ["2.11.0"], ("torch<2.9",)),
        ("torch==2.5.1", ["2.11.0"], ("torch==2.5.1",)),
        ("torch<2.12", ["2.11.0", "2.12.1"], ("torch<2.12",)),
        ("torch<2.9; extra == 'x'", ["2.11.0"], ()),
        ("torchvision<2.9", ["2.11.0"], ()),
        ("torch<2.9", [], ()),
    ],
)
def test_a_bound_of_upstreams_that_the_pytorch_does_not_meet_is_reported(
    asked: str, torches: list[str], conflict: tuple[str, ...]
) -> None:
    assert torch_conflicts(f"Name: it\nRequires-Dist: {asked}\n\nRequires-Dist: torch<1\n", torches) == conflict


def test_the_warning_names_both(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    wheel = upstream(tmp_path, metadata=METADATA.replace("Dist: torch\n", "Dist: torch<2.9\n", 1))
    (told,) = torch_warnings(wheel, make_plan(torch="2.11.0"))
    assert "torch<2.9" in told and "PyTorch 2.11.0" in told
    assert torch_warnings(upstream(tmp_path), make_plan(torch="2.11.0")) == ()


def test_modules_of_the_stable_abi_are_for_later_pytorch_too() -> None:
    assert relabel("Requires-Dist: torch", "1", ">=2.11") == "Requires-Dist: torch>=2.11"
    assert relabel("Requires-Dist: torch<3", "1", ">=2.11", "2.11.0") == "Requires-Dist: torch<3,>=2.11"


@pytest.mark.parametrize("label", ["mine.1", "none"])
@pytest.mark.parametrize("spelled", ["flash_attn-2.8.3", "Flash.Attn-2.8.3", "flash-attn-2.8.3"])
def test_what_installs_elsewhere_is_found_under_the_new_version(
    tmp_path: Path, make_plan: Callable[..., BuildPlan], label: str, spelled: str
) -> None:
    (tmp_path / "out").mkdir()
    more = {f"{spelled}.data/scripts/tool": b"#!python\n", "other-2.8.3.data/x": b"", "flash_attn-2.8.3.data": b""}
    wheel = package_wheel(upstream(tmp_path, more=more), tmp_path / "out", make_plan(label=label), "x")
    version = "2.8.3" if label == "none" else "2.8.3+mine.1"
    placed = set(read_members(wheel))
    assert f"flash_attn-{version}.data/scripts/tool" in placed
    assert {"other-2.8.3.data/x", "flash_attn-2.8.3.data"} <= placed  # these are no data folder of this wheel
    assert not [
        path for path in placed if path.endswith("/tool") and not path.startswith(f"flash_attn-{version}.data/")
    ]
