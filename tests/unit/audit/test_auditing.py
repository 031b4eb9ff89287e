"""Which PyTorch a wheel is audited against: what environments are asked for, without making any."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from audit_writers import PAIRS, SET_DEVICE, UNIVERSAL_INFO, pairs_json, torch_site, write_universal

from attnforge.model.finding import Severity
from attnforge.model.plan import BuildPlan
from attnforge.provision.environment import BuildEnvironment
from attnforge.workflow.auditing import audit, audit_against
from attnforge.workflow.machine import Machine

OLD, NEW = ("3.11", "2.11.0", "13.0"), ("3.12", "2.12.1", "13.0")


@dataclass(frozen=True)
class Shelf(Machine):
    """A machine whose environments are small ones of these tests; ``asked`` are (Python, torch, CUDA)."""

    folder: Path = Path()
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def environment(self, python: str, torch: str, cuda: str, requirements: tuple[str, ...]) -> BuildEnvironment:
        self.asked.append((python, torch, cuda))
        site = self.folder / f"site-{torch}-{len(self.asked)}"
        return BuildEnvironment(Path(), torch_site(site, [SET_DEVICE], version=f"{torch}+cu130"), "", ())


@pytest.fixture
def machine(tmp_path: Path) -> Shelf:
    return Shelf({}, folder=tmp_path)


@pytest.fixture
def wheel(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Path:
    plan = make_plan(torch="2.11.0", python="3.11").to_json()
    return write_universal(
        tmp_path, {f"{UNIVERSAL_INFO}/plan.json": json.dumps({**plan, "pairs": pairs_json(PAIRS)}).encode()}
    )


def test_each_pytorch_of_a_universal_wheel_is_asked_for_once(machine: Shelf, wheel: Path) -> None:
    report = audit(machine, wheel)
    assert machine.asked == [OLD, NEW]
    assert [finding.code for finding in report.findings if finding.severity is not Severity.OK] == []
    assert [finding.subject for finding in report.findings if finding.code == "symbols"] == [
        "PyTorch 2.11.0+cu130, Python 3.11",
        "PyTorch 2.11.0+cu130, Python 3.12",
        "PyTorch 2.12.1+cu130, Python 3.12",
    ]


def test_one_of_them_can_be_chosen(machine: Shelf, wheel: Path) -> None:
    report = audit(machine, wheel, torch="2.12.0")
    assert machine.asked == [("3.12", "2.12.0", "13.0")]
    (left,) = [finding for finding in report.findings if finding.severity is not Severity.OK]
    assert (left.code, left.subject, report.verdict) == ("pairs-left", "PyTorch 2.11 with Python 3.11, 3.12", "good")


def test_for_a_pytorch_that_it_has_nothing_for_no_environment_is_made(machine: Shelf, wheel: Path) -> None:
    report = audit(machine, wheel, torch="2.13")
    assert machine.asked == []
    (absent,) = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    assert (absent.code, absent.subject) == ("pair-absent", "PyTorch 2.13")


def test_a_site_is_held_against_the_modules_for_it(machine: Shelf, wheel: Path) -> None:
    site = machine.environment("3.12", "2.12.1", "13.0", ()).site_packages
    report = audit_against(wheel, site)
    assert [finding.code for finding in report.findings if finding.code.startswith("pair")] == ["pairs-left"]


def test_a_plain_wheel_is_held_against_its_one_pytorch(
    machine: Shelf, tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    plan = json.dumps(make_plan(torch="2.11.0", python="3.11").to_json()).encode()
    plain = write_universal(tmp_path, {f"{UNIVERSAL_INFO}/universal.json": None, f"{UNIVERSAL_INFO}/plan.json": plan})
    audit(machine, plain)
    audit(machine, plain, torch="2.12.0")
    assert machine.asked == [OLD, ("3.11", "2.12.0", "13.0")]
