"""A build with nothing to do: the wheel that an earlier one finished, with the report that it wrote.

The report is kept beside the finished wheel in the plan's build folder. It states the wheel's SHA-256, and what the
audit found in these bytes. So neither source nor environment has to be laid out for a wheel that has that hash.
"""

from __future__ import annotations

import json
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attnforge.files import file_sha256, write_whole
from attnforge.model.audit import AuditReport
from attnforge.model.events import Finished, Message, Observer
from attnforge.model.plan import BuildPlan
from attnforge.paths import Folders
from attnforge.wheelfile.archive import UNREADABLE
from attnforge.workflow.before import finished_wheels
from attnforge.workflow.delivery import deliver, writing_to
from attnforge.workflow.report import report_of
from attnforge.workflow.results import Built
from attnforge.workflow.space import check_output


def finished_wheel(folders: Folders, plan: BuildPlan) -> Path | None:
    """Return the wheel that an earlier build of a plan finished and that has its report, None where there is none."""
    kept = sorted(finished_wheels(folders.builds / plan.slug).glob("*.whl"))
    return kept[0] if kept and report_of(kept[0]).is_file() else None


def is_whole(wheel: Path) -> bool:
    """Say whether a finished wheel is what the build wrote: by the hash that its report states, and where it has no
    report by the checksums in the archive.
    """
    stated = (_read(report_of(wheel)) or {}).get("sha256")
    if isinstance(stated, str):
        return _has(wheel, stated)
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except UNREADABLE:
        return False


def keep_report(folder: Path, report: Path) -> None:
    """Keep the report of a build beside the wheel that it finished; the first one that can be read stays."""
    for wheel in finished_wheels(folder).glob("*.whl"):
        kept = report_of(wheel)
        if _read(kept) is None:
            write_whole(kept, report.read_text(encoding="utf-8"))


def first_report(folder: Path, sha256: str) -> str:
    """Return the text of the report that a build wrote when it finished the wheel of this hash, "" for none."""
    for wheel in finished_wheels(folder).glob("*.whl"):
        with suppress(OSError, ValueError):
            text = report_of(wheel).read_text(encoding="utf-8")
            if json.loads(text).get("sha256") == sha256:
                return text
    return ""


def up_to_date(folders: Folders, plan: BuildPlan, out: Path, observe: Observer) -> Built | None:
    """Return what an earlier build of a plan made, put into ``out`` where it is not there; None where there is more
    to do: no finished wheel, one with another hash than its report states, or one that the audit did not find good.
    """
    started = time.monotonic()
    kept = finished_wheel(folders, plan)
    document = _read(report_of(kept)) if kept else None
    if kept is None or document is None:
        return None
    audit, sha256 = _audit(document), document.get("sha256")
    if audit is None or audit.verdict != "good":
        return None
    placed = out / kept.name
    if not _has(placed, sha256):
        if not _has(kept, sha256):
            return None
        check_output(out)
        placed = deliver(kept, out, lambda text: observe(Message("warning", text)))
    report = report_of(placed)
    if (_read(report) or {}).get("sha256") != sha256:
        with writing_to(out):
            write_whole(report, report_of(kept).read_text(encoding="utf-8"))
    seconds = time.monotonic() - started
    observe(Message("info", "up to date: an earlier build made this wheel"))
    observe(Finished(plan.package, str(placed), str(report), seconds))
    return Built(placed, report, audit, None, seconds)


def _has(wheel: Path, sha256: Any) -> bool:
    return wheel.is_file() and file_sha256(wheel) == sha256


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _audit(document: dict[str, Any]) -> AuditReport | None:
    try:
        return AuditReport.model_validate(document.get("audit"))
    except ValidationError:
        return None
