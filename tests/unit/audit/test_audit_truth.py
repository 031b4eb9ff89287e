"""A wheel is what its name, its plan and its own account say: planned and found machine code, on every path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_writers import container, cubin, entry, library, machine_code, metadata, write_wheel

from attnforge.audit.wheel import audit_wheel
from attnforge.model.audit import AuditReport, Expected
from attnforge.model.finding import Finding, Severity
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.model.release import UnitArchitectures
from attnforge.workflow.verdict import expected_of

INFO = "demo_kernels-1.0.dist-info"


def module(*numbers: int) -> bytes:
    """A module with machine code for these."""
    return library(needed=["libc.so.6"], fatbin=b"".join(machine_code(number) for number in numbers))


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., AuditReport]:
    def run(
        modules: dict[str, bytes], coverage: dict[str, Any] | None = None, expected: Expected | None = None
    ) -> AuditReport:
        account = {f"{INFO}/attnforge/coverage.json": json.dumps(coverage).encode()} if coverage is not None else {}
        return audit_wheel(write_wheel(tmp_path, modules, info={**metadata(), **account}), expected=expected)

    return run


def told(report: AuditReport, severity: Severity = Severity.ERROR) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity is severity]


@pytest.fixture
def unknown(make_plan: Callable[..., BuildPlan]) -> Callable[..., Expected]:
    """What is expected of a package that attnforge has no recipe for."""

    def of(*gpus: str, **recipe: Any) -> Expected:
        generic = Recipe(name="it", title="it", summary="no recipe", **recipe)
        return expected_of(make_plan(package="it", version="1.0", gpus=gpus, python="3.11"), generic)

    return of


@pytest.mark.parametrize(
    ("planned", "modules", "found"),
    [
        # F1 and F2: code of the package's own choice, whether it was compiled or packed.
        (("L40S", "H100"), {"a.so": (80,)}, "sm_80"),
        (("H100",), {"a.so": (80,)}, "sm_80"),
        # Fewer, more, none.
        (("L40S", "H100"), {"a.so": (90,)}, "sm_90"),
        (("H100",), {"a.so": (80, 90)}, "sm_80, sm_90"),
        (("H100",), {"a.so": ()}, "none"),
        # One module is right, and another was made elsewhere.
        (("H100",), {"a.so": (90,), "b.so": (80,)}, "sm_80, sm_90"),
        (("L40S", "H100"), {"a.so": (89, 90), "b.so": (89,)}, "sm_89"),
        # 9.0 is not 9.0a, which is what an H100 needs of some kernels.
        (("90a",), {"a.so": (90,)}, "sm_90"),
    ],
)
def test_without_a_recipe_planned_and_found_are_compared(
    audited: Callable[..., AuditReport],
    unknown: Callable[..., Expected],
    planned: tuple[str, ...],
    modules: dict[str, tuple[int, ...]],
    found: str,
) -> None:
    wheel = {path: module(*numbers) if numbers else library(needed=["libc.so.6"]) for path, numbers in modules.items()}
    report = audited(wheel, expected=unknown(*planned))
    assert report.verdict == "bad"
    assert {finding.code for finding in told(report)} == {"planned-architectures"}
    assert found in [finding.seen for finding in told(report)]


def test_ptx_alone_is_no_machine_code(audited: Callable[..., AuditReport], unknown: Callable[..., Expected]) -> None:
    ptx = library(needed=["libc.so.6"], fatbin=container(entry(1, 90, b".version 8.0\n.target sm_90\n")))
    assert [one.code for one in told(audited({"a.so": ptx}, expected=unknown("H100")))] == ["planned-architectures"]


def test_a_wheel_without_modules_is_not_for_gpus(
    audited: Callable[..., AuditReport], unknown: Callable[..., Expected]
) -> None:
    (finding,) = told(audited({"it.py": b""}, expected=unknown("H100")))
    assert finding.seen == "none: the wheel has no compiled module"


@pytest.mark.parametrize(
    ("planned", "modules"),
    [
        (("H100",), {"a.so": (90,)}),
        (("H100", "L40S"), {"a.so": (89, 90), "b.so": (89, 90)}),
        (("H100", "L40S"), {"a.so": (89, 90), "host.so": ()}),  # a module without kernels may be beside it
    ],
)
def test_what_was_planned_is_good(
    audited: Callable[..., AuditReport],
    unknown: Callable[..., Expected],
    planned: tuple[str, ...],
    modules: dict[str, tuple[int, ...]],
) -> None:
    wheel = {path: module(*numbers) if numbers else library(needed=["libc.so.6"]) for path, numbers in modules.items()}
    assert told(audited(wheel, expected=unknown(*planned))) == []


def test_units_that_a_recipe_limits_may_leave_a_module_with_less(
    audited: Callable[..., AuditReport], unknown: Callable[..., Expected]
) -> None:
    limits = (UnitArchitectures(units=".*hopper.*", architectures=("90",)),)
    wheel = {"a.so": module(89, 90), "hopper.so": module(90)}
    assert told(audited(wheel, expected=unknown("H100", "L40S", unit_architectures=limits))) == []
    assert told(audited(wheel, expected=unknown("H100", "L40S")))


@pytest.mark.parametrize(
    ("covered", "found", "subjects"),
    [
        (["sm_89", "sm_90"], (80,), ["sm_89, sm_90", "sm_80"]),  # F5
        (["sm_90"], (90,), []),
        (["sm_90"], (80, 90), ["sm_80"]),
        (["sm_80", "sm_90"], (90,), ["sm_80"]),
        ([], (90,), ["sm_90"]),
        (["sm_90"], (), ["sm_90"]),
    ],
)
def test_a_wheels_own_account_is_compared_with_its_code(
    audited: Callable[..., AuditReport], covered: list[str], found: tuple[int, ...], subjects: list[str]
) -> None:
    files = {"a.so": module(*found)} if found else {"a.py": b""}
    report = audited(files, {"schema": 1, "architectures": covered})
    assert [(one.code, one.subject) for one in told(report)] == [("covered-code", subject) for subject in subjects]


def test_what_cannot_be_read_is_not_held_against_the_account(audited: Callable[..., AuditReport]) -> None:
    damaged = bytearray(module(80))
    at = bytes(damaged).index(b"\x50\xed\x55\xba")
    damaged[at + 16 : at + 24] = b"\xff" * 8
    report = audited({"a.so": bytes(damaged)}, {"architectures": ["sm_90"]})
    assert (report.verdict, told(report)) == ("unchecked", [])


@pytest.mark.parametrize(
    ("outside", "chosen", "severity"),
    [(False, None, None), (True, None, Severity.INFO), (True, False, Severity.ERROR), (True, True, Severity.INFO)],
)
def test_a_compile_that_did_not_go_through_ninja_is_chosen_or_an_error(
    audited: Callable[..., AuditReport],
    unknown: Callable[..., Expected],
    outside: bool,
    chosen: bool | None,
    severity: Severity | None,
) -> None:
    """Also where the machine code is what was planned: nothing says that it comes of the source."""
    account = {"architectures": ["sm_90"], **({"outside": True} if outside else {})}
    expected = None if chosen is None else unknown("H100", outside=chosen)
    report = audited({"a.so": module(90)}, account, expected)
    found = [one.severity for one in report.findings if one.code == "compiled-outside"]
    assert found == ([severity] if severity else [])


def test_cubins_are_read_exactly(audited: Callable[..., AuditReport], unknown: Callable[..., Expected]) -> None:
    code = container(entry(2, 90, cubin(90, ("k",), a=True), suffix="a"))
    report = audited({"a.so": library(needed=["libc.so.6"], fatbin=code)}, expected=unknown("90a"))
    assert told(report) == []


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("demo_kernels-1.0.data/scripts/tool", False),
        ("demo_kernels-1.0+cu130.data/scripts/tool", True),  # F12: dist-info was renamed, and this was not
        ("demo_kernels-0.9.data/headers/x.h", True),
        ("demo.data/table.csv", False),  # a package's own folder
    ],
)
def test_a_data_folder_has_the_name_of_dist_info(audited: Callable[..., AuditReport], path: str, bad: bool) -> None:
    assert [one.code for one in told(audited({path: b"x"}))] == (["data-name"] if bad else [])
