"""A build with nothing to do says so, lays nothing out, and keeps the first report."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import RequestError
from attnforge.model.audit import AuditReport
from attnforge.model.events import Event, Finished, Message
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.paths import Folders
from attnforge.workflow import before
from attnforge.workflow.before import finished_wheels
from attnforge.workflow.report import report_of, write_report
from attnforge.workflow.uptodate import finished_wheel, first_report, is_whole, keep_report, up_to_date

GOOD = AuditReport(wheel="w", modules=(), platform_tag="linux_x86_64", findings=(), verdict="good")


class House:
    """A plan's build folder with a finished wheel, delivered to ``out`` with its report."""

    def __init__(self, folder: Path, resolution: Resolution) -> None:
        self.folders, self.out, self.plan = Folders(folder / "cache"), folder / "dist", resolution.plan
        self.folder = self.folders.builds / self.plan.slug
        self.kept = finished_wheels(self.folder) / self.plan.wheel
        self.placed = self.out / self.plan.wheel
        for wheel in (self.kept, self.placed):
            wheel.parent.mkdir(parents=True)
            wheel.write_bytes(b"the wheel")
        self.report = write_report(self.placed, resolution, (), GOOD, None, 93.0)
        keep_report(self.folder, self.report)
        self.events: list[Event] = []

    def again(self) -> bool:
        done = up_to_date(self.folders, self.plan, self.out, self.events.append)
        assert done is None or (done.wheel, done.report, done.audit) == (self.placed, self.report, GOOD)
        return done is not None


@pytest.fixture
def house(tmp_path: Path, make_resolution: Callable[..., Resolution]) -> House:
    return House(tmp_path, make_resolution())


def test_nothing_is_done_and_the_report_stays(house: House) -> None:
    before = house.report.read_text(), house.placed.stat().st_mtime_ns
    assert house.again()
    assert (house.report.read_text(), house.placed.stat().st_mtime_ns) == before
    message, finished = house.events
    assert isinstance(message, Message) and "up to date" in message.text
    assert isinstance(finished, Finished)


def test_a_wheel_that_was_removed_is_delivered_again_with_its_report(house: House) -> None:
    text = house.report.read_text()
    house.placed.unlink()
    house.report.unlink()
    assert house.again()
    assert house.placed.read_bytes() == b"the wheel"
    assert house.report.read_text() == text


def test_a_place_that_can_take_no_wheel_is_said_where_nothing_is_left_to_do(house: House) -> None:
    """F19: a link to nothing, and to a file."""
    house.placed.unlink()
    house.report.unlink()
    house.out.rmdir()
    for target in ("/nowhere/x", "/dev/null"):
        house.out.symlink_to(target)
        with pytest.raises(RequestError, match="no wheel can be put there"):
            house.again()
        house.out.unlink()


def test_a_report_of_another_wheel_is_replaced(house: House) -> None:
    house.report.write_text(json.dumps({"sha256": "0" * 64}))
    assert house.again()
    assert json.loads(house.report.read_text())["seconds"] == 93.0


def test_a_damaged_wheel_is_none(house: House) -> None:
    house.kept.write_bytes(b"")
    assert house.again()  # the delivered one is whole
    house.placed.write_bytes(b"other")
    assert not house.again()


def test_a_wheel_with_a_report_is_whole_where_it_has_its_hash(house: House) -> None:
    assert is_whole(house.kept)
    for damaged in (b"", b"the whee", b"the wheel ", b"thE wheel"):
        house.kept.write_bytes(damaged)
        assert not is_whole(house.kept)


@given(st.data())
def test_a_wheel_without_report_is_whole_where_its_checksums_are(data: st.DataObject) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", b"some text " * 40)
    whole = written.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / "a.whl"
        wheel.write_bytes(whole)
        assert is_whole(wheel)
        wheel.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert not is_whole(wheel)
        at = data.draw(st.integers(0, len(whole) - 1))
        wheel.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        is_whole(wheel)  # raises nothing, whatever is damaged
        wheel.unlink()
        assert not is_whole(wheel)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"sha256": 3, "audit": null}', "[" * 5000])
def test_a_report_that_can_not_be_read_is_none(house: House, text: str) -> None:
    report_of(house.kept).write_text(text)
    assert not house.again()


def test_a_wheel_that_was_not_good_is_looked_at_again(house: House) -> None:
    document = json.loads(report_of(house.kept).read_text())
    document["audit"]["verdict"] = "unchecked"
    report_of(house.kept).write_text(json.dumps(document))
    assert not house.again()


def test_another_attnforge_makes_its_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "fingerprint", lambda: "another")
    assert not house.again()


def test_another_plan_has_nothing(house: House, make_plan: Callable[..., BuildPlan]) -> None:
    assert up_to_date(house.folders, make_plan(gpus=("A100",)), house.out, house.events.append) is None
    assert finished_wheel(house.folders, make_plan(gpus=("A100",))) is None
    assert not house.events


def test_the_first_report_of_a_wheel_is_the_one_that_is_kept(house: House) -> None:
    later = house.out / "later.json"
    later.write_text("{}")
    keep_report(house.folder, later)
    stated = json.loads(house.report.read_text())["sha256"]
    assert first_report(house.folder, stated) == house.report.read_text()
    assert first_report(house.folder, "0" * 64) == ""
