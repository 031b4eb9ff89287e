"""Verdicts are about the wheel: not about the PyTorch, the memory or the system that it is looked at with."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_writers import Sym, library, machine_code, metadata, torch_site, write_wheel

from attnforge.audit.wheel import audit_wheel
from attnforge.cli.main import main
from attnforge.cli.show import audit_lines, grouped
from attnforge.errors import HostError
from attnforge.knowledge.torch import find_torch
from attnforge.model.finding import Finding, Severity
from attnforge.model.plan import BuildPlan
from attnforge.wheelfile.name import WheelName
from attnforge.workflow.auditing import python_for

SET_DEVICE = "_ZN3c104cuda9SetDeviceEa"
MODULE = "demo_cuda.cpython-311-x86_64-linux-gnu.so"
METADATA = "demo_kernels-1.0.dist-info/METADATA"


def wheel(folder: Path, *symbols: str, asks: str = "", module: bytes | None = None) -> Path:
    image = library([Sym(name) for name in symbols or (SET_DEVICE,)], needed=["libc10.so"], fatbin=machine_code(90))
    info = metadata()
    info[METADATA] += f"Requires-Dist: {asks}\n".encode() if asks else b""
    return write_wheel(folder / "dist", {MODULE: module or image}, info=info)


def codes(path: Path, site: Path) -> dict[str, Severity]:
    return {one.code: one.severity for one in audit_wheel(path, torch_site=site).findings if one.severity != "ok"}


# --- F13


def test_functions_of_the_c_library_are_provided(tmp_path: Path) -> None:
    path = wheel(tmp_path, SET_DEVICE, "dlopen", "dlsym", "dlclose")
    report = audit_wheel(path, torch_site=torch_site(tmp_path / "site", [SET_DEVICE]))
    assert report.verdict == "good"
    assert "  symbols    PyTorch 2.11.0+cu130: 1 symbols, all provided" in list(audit_lines(report))


# --- F14


def test_a_damaged_pytorch_is_exit_3_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = torch_site(tmp_path / "site", [SET_DEVICE])
    (site / "torch" / "lib" / "libc10.so").write_bytes(b"\x7fELF")
    monkeypatch.setattr("attnforge.workflow.auditing._site_of", lambda *_: site)
    out, err = io.StringIO(), io.StringIO()
    words = ["audit", str(wheel(tmp_path)), "--python", "python3"]
    assert main(words, {"HOME": str(tmp_path)}, out, err) == 3
    assert "PyTorch can't be read" in err.getvalue() and "bad" not in out.getvalue()


@pytest.mark.parametrize(
    "where",
    [
        "wheelfile.archive.Archive.digest",
        "audit.site.open_elf",
        "audit.wheel.open_elf",
        "audit.module.read_device_code",
    ],
)
@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory")])
def test_memory_that_ran_out_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    path, site = wheel(tmp_path), torch_site(tmp_path / "site", [SET_DEVICE])
    monkeypatch.setattr(f"attnforge.{where}", fail)
    with pytest.raises(HostError, match="memory ran out"):
        audit_wheel(path, torch_site=site)


def test_memory_that_runs_out_anywhere_is_exit_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("attnforge.cli.main._dispatch", fail)
    err = io.StringIO()
    assert main(["plan", "x"], {"HOME": str(tmp_path)}, io.StringIO(), err) == 3
    assert "ran out of memory" in err.getvalue()


# --- F15


@pytest.mark.parametrize(
    ("tags", "foreign"),
    [
        ("cp311-cp311-macosx_11_0_arm64", True),
        ("cp311-cp311-macosx_10_13_universal2", True),
        ("cp311-cp311-win_amd64", True),
        ("cp311-cp311-musllinux_1_2_x86_64", True),
        ("cp311-cp311-linux_armv7l", True),
        ("cp311-cp311-manylinux_2_28_s390x", True),
        ("cp313-cp313-android_24_arm64_v8a", True),
        ("cp311-cp311-linux_x86_64", False),
        ("cp311-cp311-linux_aarch64", False),
        ("cp311-cp311-manylinux2014_x86_64", False),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", False),
        ("cp311-cp311-macosx_11_0_arm64.manylinux2014_x86_64", False),
        ("py3-none-any", False),
    ],
)
def test_which_wheels_are_of_another_system(tmp_path: Path, tags: str, foreign: bool) -> None:
    name = WheelName.parse(f"demo_kernels-1.0-{tags}.whl")
    assert name is not None and name.is_foreign is foreign
    if not foreign:
        return
    # A module that is no ELF file: nothing of the kind is said of it.
    tag = " ".join(sorted(map(str, name.tags)))
    files = {"demo.cpython-311-darwin.so": b"\xcf\xfa\xed\xfe"}
    path = write_wheel(tmp_path, files, name=f"demo_kernels-1.0-{tags}.whl", info=metadata(tag=tag))
    report = audit_wheel(path, torch_site=torch_site(tmp_path / "site", []))
    assert (report.verdict, report.exit_code) == ("unchecked", 6)
    (finding,) = [one for one in report.findings if one.severity is not Severity.OK]
    assert finding.code == "platform-unchecked" and "not checked" in finding.means


def test_what_is_the_same_on_every_system_is_still_checked(tmp_path: Path) -> None:
    tags = "cp311-cp311-macosx_11_0_arm64"
    path = write_wheel(tmp_path, {"a.py": b""}, name=f"demo_kernels-1.0-{tags}.whl", record=b"a.py,sha256=x,1\n")
    assert audit_wheel(path).verdict == "bad"


def test_a_wheel_for_arm_is_not_compared_with_a_pytorch_for_x86(tmp_path: Path) -> None:
    image = library([Sym(SET_DEVICE)], needed=["libc10.so"], fatbin=machine_code(90), machine=183)
    name, tag = "demo_kernels-1.0-cp311-cp311-linux_aarch64.whl", "cp311-cp311-linux_aarch64"
    path = write_wheel(tmp_path, {"demo_cuda.so": image}, name=name, info=metadata(tag=tag))
    report = audit_wheel(path, torch_site=torch_site(tmp_path / "site", []))
    assert report.verdict == "unchecked"
    assert "for x86_64" in next(one.seen for one in report.findings if one.code == "symbols-unchecked")


# --- F16


@pytest.mark.parametrize(
    ("tags", "there", "chosen"),
    [
        ("cp39-abi3-linux_x86_64", ["3.11"], "3.11"),  # as given
        ("cp39-abi3-linux_x86_64", ["3.10", "3.12", "3.8"], "3.12"),
        ("cp312-abi3-linux_x86_64", ["3.11"], "3.14"),  # none that serves is there: the newest is asked for
        ("py3-none-linux_x86_64", ["3.11"], "3.11"),
        ("cp311-cp311-linux_x86_64", ["3.11", "3.12"], "3.11"),
        ("cp311-cp311-linux_x86_64", ["3.12"], "3.11"),
        ("cp38-cp38-linux_x86_64", ["3.11"], "3.11"),  # no PyTorch of that release is for it
    ],
)
def test_any_python_that_a_wheel_is_for_can_look_at_it(tags: str, there: list[str], chosen: str) -> None:
    offered = find_torch("2.13").pythons
    assert python_for(WheelName.parse(f"x-1.0-{tags}.whl"), None, offered, there) == chosen


def test_a_plan_for_a_python_that_is_not_here_is_looked_at_with_another_where_the_wheel_is_for_it(
    make_plan: Callable[..., BuildPlan],
) -> None:
    plan, offered = make_plan(python="3.12"), find_torch("2.11.0").pythons
    abi3 = WheelName.parse("x-1.0-cp39-abi3-linux_x86_64.whl")
    assert python_for(abi3, plan, offered, ["3.11"]) == "3.11"
    assert python_for(abi3, plan, offered, ["3.11", "3.12"]) == "3.12"
    assert python_for(WheelName.parse("x-1.0-cp312-cp312-linux_x86_64.whl"), plan, offered, ["3.11"]) == "3.12"


# --- a PyTorch that the wheel does not allow


@pytest.mark.parametrize(
    ("asks", "symbols", "verdict", "said"),
    [
        ("torch==2.11.*", (), "good", {}),
        ("torch>=2.4", (), "good", {}),
        ("torch==2.10.*", (), "unchecked", {"torch-not-allowed": Severity.UNCHECKED}),
        (
            "torch<2.11",
            ("_ZN3c104gone",),
            "unchecked",
            {"torch-not-allowed": Severity.UNCHECKED, "undefined-symbol": Severity.WARNING},
        ),
        ("torch==2.11.*", ("_ZN3c104gone",), "bad", {"undefined-symbol": Severity.ERROR}),
        ("torch==2.10.*; python_version < '3.9'", (), "good", {}),
        ("torch==2.10.*; extra == 'old'", (), "good", {}),
        ("torch==2.10.*; python_version == '3.11'", (), "unchecked", {"torch-not-allowed": Severity.UNCHECKED}),
        ("torchvision<2", (), "good", {}),
    ],
)
def test_a_pytorch_that_the_wheel_does_not_allow_is_said(
    tmp_path: Path, asks: str, symbols: tuple[str, ...], verdict: str, said: dict[str, Severity]
) -> None:
    path, site = wheel(tmp_path, SET_DEVICE, *symbols, asks=asks), torch_site(tmp_path / "site", [SET_DEVICE])
    assert audit_wheel(path, torch_site=site).verdict == verdict
    assert codes(path, site) == said


# --- F17


def test_findings_that_say_the_same_are_one_with_their_number() -> None:
    def finding(number: int, seen: str, means: str = "m") -> Finding:
        return Finding(code="rpath", severity=Severity.WARNING, subject=f"lib{number}.so", seen=seen, means=means)

    many = [finding(number, f"/usr/local/cuda-{number}/lib") for number in range(13)]
    one, other = grouped([*many, finding(99, "x", "other")])
    assert one.subject == "13 times: lib0.so, lib1.so, lib2.so, lib3.so, lib4.so and 8 more"
    assert one.seen.endswith("/usr/local/cuda-4/lib and 8 more")
    assert other == finding(99, "x", "other")


def test_a_wheel_with_many_alike_libraries(tmp_path: Path) -> None:
    files = {f"x/lib{n}.so": library(needed=["libc.so.6"], rpath=f"/usr/local/cuda-{n}/lib") for n in range(13)}
    path = write_wheel(tmp_path, files)
    report = audit_wheel(path)
    assert sum(one.code == "rpath" for one in report.findings) == 13  # --json has each
    assert sum(line.startswith("  warn") for line in audit_lines(report)) == 1
    assert zipfile.is_zipfile(path)
