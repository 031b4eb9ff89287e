"""The report beside a wheel: what it says of the pairs of a universal one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnforge.compile.run.summary import Summary, Tally
from attnforge.model.audit import AuditReport
from attnforge.model.plan import Resolution
from attnforge.model.universal import Pair
from attnforge.workflow.report import write_extension_report, write_report

PAIRS = (Pair(torch="2.12.1", python="3.12"), Pair(torch="2.13.0", python="3.12"))
TOOK = [
    {"torch": "2.12.1", "python": "3.12", "cpu_seconds": 30.2, "wall_seconds": 12.0},
    {"torch": "2.13.0", "python": "3.12", "cpu_seconds": 31.0, "wall_seconds": 14.1},
]


def summary(cpu_seconds: float, wall_seconds: float) -> Summary:
    return replace(Tally().summary(0, wall_seconds), cpu_seconds=cpu_seconds)


SUMMARIES = tuple(zip(PAIRS, (summary(30.23, 12.0), summary(30.96, 14.06)), strict=True))


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "small-1.0-py3-none-linux_x86_64.whl"
    path.write_bytes(b"a wheel")
    return path


def read(report: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(report.read_text())
    return loaded


def test_each_further_pair_is_told_with_what_it_took(
    wheel: Path, audited: AuditReport, make_resolution: Callable[..., Resolution]
) -> None:
    resolution = make_resolution(universal=True, torch="2.11-2.13", python="3.12")
    report = read(write_report(wheel, resolution, ("torch==2.11.0",), audited, summary(900, 80), 120.04, SUMMARIES))
    assert report["pairs"] == TOOK
    assert report["compile"]["cpu_seconds"] == 900
    assert report["seconds"] == 120.0
    assert report["sha256"] == hashlib.sha256(b"a wheel").hexdigest()
    assert [pair["torch"] for pair in report["resolution"]["pairs"]] == ["2.11.0", "2.12.1", "2.13.0"]


def test_a_plain_wheel_has_no_pairs(
    wheel: Path, audited: AuditReport, make_resolution: Callable[..., Resolution]
) -> None:
    assert read(write_report(wheel, make_resolution(), (), audited, None, 1.0))["pairs"] == []


def test_an_extension_tells_of_what_was_added(
    wheel: Path, audited: AuditReport, make_resolution: Callable[..., Resolution]
) -> None:
    plan = make_resolution(universal=True, torch="2.11-2.13", python="3.12").plan
    report = read(write_extension_report(wheel, plan, plan.toolchain, audited, SUMMARIES, 26.0))
    assert report["toolchain"] == plan.toolchain.to_json()
    assert report["pairs"] == TOOK
    assert report["plan"] == plan.to_json()
    assert (report["wheel"], report["audit"]) == (wheel.name, audited.to_json())


@pytest.fixture
def audited(wheel: Path) -> AuditReport:
    return AuditReport(wheel=wheel.name, verdict="good", modules=(), platform_tag="linux_x86_64", findings=())
