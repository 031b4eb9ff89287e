"""A wheel is put where it is asked for, and never silently in the place of another one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.plan import BuildPlan
from attnforge.workflow.delivery import deliver

NAME = "it-1.0-cp312-cp312-linux_x86_64.whl"


def wheel(folder: Path, content: str, plan: BuildPlan | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("it.py", content)
        if plan:
            archive.writestr("it-1.0.dist-info/attnforge/plan.json", json.dumps(plan.to_json()))
    return path


def test_a_wheel_is_copied_into_a_new_folder(tmp_path: Path) -> None:
    said: list[str] = []
    placed = deliver(wheel(tmp_path / "made", "a"), tmp_path / "some" / "dist", said.append)
    assert placed == tmp_path / "some" / "dist" / NAME
    assert placed.read_bytes() == (tmp_path / "made" / NAME).read_bytes()
    assert said == []


def test_the_same_bytes_are_left_alone(tmp_path: Path) -> None:
    said: list[str] = []
    made, out = wheel(tmp_path / "made", "a"), tmp_path / "dist"
    before = deliver(made, out, said.append).stat()
    assert deliver(made, out, said.append).stat().st_mtime_ns == before.st_mtime_ns
    assert (said, [path.name for path in out.iterdir()]) == ([], [NAME])


def test_other_content_is_kept_with_its_report(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    """F10: one name, other bytes. Three in a row, and each is still there."""
    said: list[str] = []
    out = tmp_path / "dist"
    plans = [make_plan().model_copy(update={"groups": ((name,),)}) for name in "abc"]
    made = [wheel(tmp_path / str(number), "a", plan) for number, plan in enumerate(plans)]
    for one in made:
        placed = deliver(one, out, said.append)
        placed.with_name(f"{NAME}.report.json").write_text(one.parent.name)
    assert placed.read_bytes() == made[2].read_bytes()
    kept = {path.read_bytes() for path in out.glob(f"{NAME}.*.old")}
    assert kept == {one.read_bytes() for one in made[:2]}
    assert sorted(path.read_text() for path in out.glob("*.old.report.json")) == ["0", "1"]
    assert len(list(out.glob("*.whl"))) == 1
    assert len(said) == 2
    assert "other content (of another plan: groups differs)" in said[0] and ".old" in said[0]


@pytest.mark.parametrize("there", ["text", "folder", "link", "nowhere"])
def test_what_is_no_wheel_is_kept_too(tmp_path: Path, there: str) -> None:
    said: list[str] = []
    out = tmp_path / "dist"
    out.mkdir()
    if there == "text":
        (out / NAME).write_text("notes")
    elif there == "folder":
        (out / NAME).mkdir()
    else:
        (tmp_path / "elsewhere.txt").write_text("precious")
        (out / NAME).symlink_to(tmp_path / ("elsewhere.txt" if there == "link" else "gone"))
    made = wheel(tmp_path / "made", "a")
    assert deliver(made, out, said.append).read_bytes() == made.read_bytes()
    assert not (out / NAME).is_symlink()
    assert len(list(out.glob("*.old"))) == 1
    assert "without a readable plan" in said[0]
    if there in ("link", "nowhere"):
        assert (tmp_path / "elsewhere.txt").read_text() == "precious"
