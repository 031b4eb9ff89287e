from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_writers import (
    Sym,
    container,
    cubin,
    entry,
    library,
    machine_code,
    metadata,
    record_of,
    torch_site,
    write_wheel,
)

from attnforge.audit.wheel import audit_wheel
from attnforge.errors import AttnforgeError, RequestError, WheelError
from attnforge.model.audit import AuditReport, Expected, KernelCount
from attnforge.model.finding import Severity
from attnforge.model.kernels import Kernels
from attnforge.model.recipe import Recipe
from attnforge.wheelfile.archive import Member, unsafe

SET_DEVICE = "_ZN3c104cuda9SetDeviceEa"
MODULE = "demo_cuda.cpython-311-x86_64-linux-gnu.so"
INFO = "demo_kernels-1.0.dist-info"


def extension(*symbols: str, fatbin: bytes | None = None, rpath: str = "") -> bytes:
    wanted = [Sym(symbol) for symbol in symbols or (SET_DEVICE,)]
    wanted += [Sym("PyModule_Create2"), Sym("malloc", version=("libc.so.6", "GLIBC_2.28"))]
    code = machine_code(90, "kernel") if fatbin is None else fatbin
    needed = ["libc10.so", "libcudart.so.13", "libc.so.6"]
    return library(wanted, needed=needed, fatbin=code, rpath=rpath)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return torch_site(tmp_path / "site", [SET_DEVICE])


@pytest.fixture
def audit(tmp_path: Path, site: Path) -> Callable[..., AuditReport]:
    """Write a wheel that is good but for what is given, and audit it."""

    def run(files: dict[str, bytes] | None = None, *, expected: Expected | None = None, **wheel: object) -> AuditReport:
        contents = {"demo/__init__.py": b"", MODULE: extension()} if files is None else files
        path = write_wheel(tmp_path / "dist", contents, **wheel)  # type: ignore[arg-type]
        return audit_wheel(path, torch_site=site, expected=expected)

    return run


def codes(report: AuditReport, *severities: Severity) -> list[str]:
    return [finding.code for finding in report.findings if finding.severity in severities]


def errors(report: AuditReport) -> list[str]:
    return codes(report, Severity.ERROR)


def test_a_good_wheel(audit: Callable[..., AuditReport]) -> None:
    report = audit(expected=Expected(architectures=("sm_90",), modules=("demo_cuda",), python="cp311"))
    assert [finding for finding in report.findings if finding.severity is not Severity.OK] == []
    assert (report.verdict, report.exit_code) == ("good", 0)
    (module,) = report.modules
    assert (module.path, module.architectures, module.ptx, module.device_functions) == (MODULE, ("sm_90",), (), 1)
    assert module.needed == ("libc10.so", "libcudart.so.13", "libc.so.6")
    assert module.size == len(extension())
    assert (report.glibc, report.glibcxx, report.platform_tag) == ("2.28", "", "manylinux_2_28_x86_64")
    assert codes(report, Severity.OK) == ["record", "symbols", "platform"]


def test_the_json_has_the_keys_that_are_promised(audit: Callable[..., AuditReport]) -> None:
    document = audit().to_json()
    assert document["schema"] == 1
    promised = {"schema", "wheel", "modules", "undefined", "glibc", "platform_tag", "findings", "verdict"}
    assert promised <= set(document)
    assert {"path", "architectures", "ptx", "needed", "size"} <= set(document["modules"][0])
    assert json.loads(json.dumps(document)) == document


def test_a_wrong_hash(audit: Callable[..., AuditReport]) -> None:
    record = record_of({MODULE: extension("other"), **metadata()}, INFO)
    assert errors(audit({MODULE: extension()}, record=record)) == ["record-hash"]


def test_a_file_that_record_does_not_name(audit: Callable[..., AuditReport]) -> None:
    record = record_of({MODULE: extension(), **metadata()}, INFO)
    assert errors(audit({MODULE: extension(), "extra.py": b"x"}, record=record)) == ["record-unlisted-file"]


def test_a_file_that_record_names_and_that_is_not_there(audit: Callable[..., AuditReport]) -> None:
    record = record_of({MODULE: extension(), "gone.py": b"x", **metadata()}, INFO)
    assert errors(audit({MODULE: extension()}, record=record)) == ["record-missing-file"]


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL"])
def test_a_missing_file_of_dist_info(missing: str, audit: Callable[..., AuditReport]) -> None:
    info = {path: data for path, data in metadata().items() if not path.endswith(missing)}
    report = audit(info=info)
    assert errors(report) == ["dist-info"]
    assert missing in next(f.seen for f in report.findings if f.code == "dist-info")


def test_two_dist_info_folders(audit: Callable[..., AuditReport]) -> None:
    assert errors(audit({MODULE: extension(), "other-1.0.dist-info/METADATA": b""})) == ["dist-info"]


def test_a_renamed_wheel(audit: Callable[..., AuditReport]) -> None:
    found = errors(audit(name="demo_kernels-2.0-cp312-cp312-linux_x86_64.whl"))
    assert found == ["metadata-name", "dist-info-name", "wheel-tags", "module-suffix"]


def test_a_name_that_is_none_of_a_wheel(audit: Callable[..., AuditReport]) -> None:
    assert errors(audit(name="demo.whl")) == ["wheel-name"]


def test_a_promise_of_an_older_glibc(audit: Callable[..., AuditReport]) -> None:
    tag = "cp311-cp311-manylinux_2_17_x86_64"
    report = audit(name=f"demo_kernels-1.0-{tag}.whl", info=metadata(tag=tag))
    assert errors(report) == ["platform-tag"]


def test_an_undefined_symbol(audit: Callable[..., AuditReport]) -> None:
    report = audit({MODULE: extension("_ZN3c104cuda9SetDeviceEi")})
    assert errors(report) == ["undefined-symbol"]
    assert report.undefined in (("c10::cuda::SetDevice(int)",), ("_ZN3c104cuda9SetDeviceEi",))
    assert (report.verdict, report.exit_code) == ("bad", 5)


@pytest.mark.parametrize("planned", ["sm_80", "sm_90a"])
def test_an_architecture_that_was_not_planned(planned: str, audit: Callable[..., AuditReport]) -> None:
    assert errors(audit(expected=Expected(architectures=(planned,)))) == ["planned-architectures"]


def test_no_machine_code(audit: Callable[..., AuditReport]) -> None:
    report = audit({MODULE: extension(fatbin=container(entry(1, 90, b".version 9.0")))})
    assert codes(report, Severity.WARNING) == ["no-machine-code"]
    assert report.modules[0].ptx == ("compute_90",)
    assert report.exit_code == 0


def test_unreadable_device_code_is_never_good(audit: Callable[..., AuditReport]) -> None:
    report = audit({MODULE: extension(fatbin=container(entry(2, 90, b"no cubin")))})
    assert codes(report, Severity.UNCHECKED) == ["device-code-unreadable"]
    assert (report.verdict, report.exit_code) == ("unchecked", 6)


def test_mislabelled_device_code(audit: Callable[..., AuditReport]) -> None:
    assert errors(audit({MODULE: extension(fatbin=container(entry(2, 90, cubin(80, ["k"]))))})) == [
        "device-code-mislabelled"
    ]


@pytest.mark.parametrize(
    ("rpath", "found"),
    [("$ORIGIN/../torch/lib", []), ("$ORIGIN:/home/builder/lib", ["rpath"]), ("${ORIGIN}/lib", []), ("lib", ["rpath"])],
)
def test_rpath(rpath: str, found: list[str], audit: Callable[..., AuditReport]) -> None:
    assert codes(audit({MODULE: extension(rpath=rpath)}), Severity.WARNING) == found


def test_a_module_that_was_cut_off_does_not_hide_the_others(audit: Callable[..., AuditReport]) -> None:
    whole = extension()
    report = audit({MODULE: whole, "cut.so": whole[: len(whole) // 2], "empty.so": b""})
    assert errors(report) == ["module-unreadable", "module-unreadable"]
    assert [module.path for module in report.modules] == [MODULE]


def test_a_module_without_sections_is_unchecked(audit: Callable[..., AuditReport]) -> None:
    bare = bytearray(extension()[:64])
    bare[40:48] = bytes(8)
    assert codes(audit({MODULE: bytes(bare)}), Severity.UNCHECKED) == ["module-hidden"]


def test_without_pytorch_the_wheel_is_unchecked(tmp_path: Path) -> None:
    report = audit_wheel(write_wheel(tmp_path, {MODULE: extension()}), torch_site=None)
    assert (report.verdict, report.exit_code, report.undefined) == ("unchecked", 6, ())


def test_an_error_outweighs_what_is_unchecked(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, {MODULE: extension()}, record=b"")
    assert audit_wheel(wheel, torch_site=None).verdict == "bad"


def test_another_system_is_unchecked(audit: Callable[..., AuditReport]) -> None:
    tag = "cp311-cp311-win_amd64"
    report = audit({"demo.pyd": b"MZ"}, name=f"demo_kernels-1.0-{tag}.whl", info=metadata(tag=tag))
    assert codes(report, Severity.UNCHECKED) == ["platform-unchecked"]


def test_a_wheel_without_modules(audit: Callable[..., AuditReport]) -> None:
    tag = "py3-none-any"
    report = audit({"demo.py": b""}, name=f"demo_kernels-1.0-{tag}.whl", info=metadata(tag=tag))
    assert (report.verdict, report.platform_tag, report.modules) == ("good", "any", ())


def test_kernels_of_a_recipe(tmp_path: Path, site: Path) -> None:
    rule = Kernels(
        pattern="(?P<kind>k)(?P<head_dim>h)(?P<dtype>d)",
        kinds={},
        dtypes=("fp16",),
        symbol=r"d(?P<head_dim>\d+)_(?P<dtype>\w+)",
        symbol_dtypes={"h": "fp16"},
    )
    recipe = Recipe(name="demo", title="demo", summary="demo", kernels=rule)
    code = machine_code(80, "d64_h", "d128_h") + machine_code(90, "d64_h")
    wheel = write_wheel(tmp_path, {MODULE: extension(fatbin=code)})
    (module,) = audit_wheel(wheel, torch_site=site, recipe=recipe).modules
    assert module.architectures == ("sm_80", "sm_90")
    counts = (KernelCount(head_dim=64, dtype="fp16", count=1), KernelCount(head_dim=128, dtype="fp16", count=1))
    assert module.kernels == counts


def test_coverage_is_reported(audit: Callable[..., AuditReport]) -> None:
    info = {**metadata(), f"{INFO}/attnforge/coverage.json": b'{"kept": ["fwd"]}'}
    assert audit(info=info).coverage == {"kept": ["fwd"]}
    assert audit().coverage is None


@pytest.mark.parametrize("text", [b"{", b"[]", b"[" * 100_000])
def test_unreadable_coverage(text: bytes, audit: Callable[..., AuditReport]) -> None:
    with pytest.raises(WheelError, match=r"coverage\.json"):
        audit(info={**metadata(), f"{INFO}/attnforge/coverage.json": text})


@pytest.mark.parametrize(
    ("path", "mode", "safe"),
    [
        ("demo/__init__.py", 0, True),
        ("demo/__init__.py", stat.S_IFREG | 0o644, True),
        ("demo/a..b.py", 0, True),
        ("../evil.py", 0, False),
        ("demo/../../evil.py", 0, False),
        ("/etc/passwd", 0, False),
        ("C:/evil.py", 0, False),
        ("demo\\..\\evil.py", 0, False),
        ("demo/link", stat.S_IFLNK | 0o777, False),
        ("demo/device", stat.S_IFCHR | 0o600, False),
    ],
)
def test_paths_that_must_not_be_unpacked(path: str, mode: int, safe: bool) -> None:
    assert (unsafe(Member(path, 1, mode)) == "") is safe


def test_an_unsafe_path_is_reported_and_nothing_is_written_there(
    audit: Callable[..., AuditReport], tmp_path: Path
) -> None:
    report = audit({MODULE: extension(), "../../evil.so": extension()})
    assert "unsafe-path" in errors(report)
    assert list(tmp_path.rglob("evil.so")) == []


def test_a_file_that_is_there_twice(tmp_path: Path, site: Path) -> None:
    wheel = write_wheel(tmp_path, {MODULE: extension(), "demo.py": b"1"})
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("demo.py", b"1")
    assert errors(audit_wheel(wheel, torch_site=site)) == ["duplicate-files"]


@pytest.mark.parametrize("kept", [0, 1, 30, 0.5, 0.9, -1])
def test_a_truncated_wheel(kept: float, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, {MODULE: extension()})
    data = wheel.read_bytes()
    wheel.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    _is_refused(wheel)


@pytest.mark.parametrize("data", [b"not a zip", b"\x1f\x8b" + bytes(100), b"PK\x05\x06"])
def test_a_file_that_is_no_wheel(data: bytes, tmp_path: Path) -> None:
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(data)
    _is_refused(wheel)


def test_a_flipped_bit_in_a_stored_file(tmp_path: Path) -> None:
    wheel = tmp_path / "demo_kernels-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("demo.py", b"a" * 1000)
    wheel.write_bytes(wheel.read_bytes().replace(b"aaaaaaaaaa", b"aaaaabaaaa", 1))
    _is_refused(wheel)


def test_a_damaged_deflate_stream(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, {"demo.py": bytes(range(256)) * 20})
    data = bytearray(wheel.read_bytes())
    data[60:90] = bytes(30)
    wheel.write_bytes(data)
    _is_refused(wheel)


def _is_refused(wheel: Path) -> None:
    with pytest.raises(WheelError) as caught:
        audit_wheel(wheel, torch_site=None)
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        audit_wheel(tmp_path / "absent.whl", torch_site=None)
    assert caught.value.hint


def test_no_space_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = write_wheel(tmp_path, {MODULE: extension()})

    def full(self: Path, mode: str = "r", *rest: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(AttnforgeError) as caught:
        audit_wheel(wheel, torch_site=None)
    assert caught.value.exit_code == 3
    assert "TMPDIR" in caught.value.hint


@pytest.mark.parametrize("name", ["libcuda.so.1", "libcuda.so", "libnvidia-ml.so.1"])
def test_a_library_of_the_driver_makes_a_wheel_bad(audit: Callable[..., AuditReport], name: str) -> None:
    inside = {f"demo.libs/{name}": library([Sym("malloc")], needed=["libc.so.6"])}
    report = audit({"demo/__init__.py": b"", MODULE: extension(), **inside})
    (finding,) = [finding for finding in report.findings if finding.code == "driver-inside"]
    assert (finding.subject, report.verdict) == (f"demo.libs/{name}", "bad")


def test_a_module_that_exports_a_cxx_library_of_its_own_is_bad(audit: Callable[..., AuditReport]) -> None:
    symbols = [Sym(SET_DEVICE), Sym("PyModule_Create2"), Sym("__cxa_throw", defined=True)]
    code = library(symbols, needed=["libc10.so", "libcudart.so.13"], fatbin=machine_code(90, "k"))
    report = audit({"demo/__init__.py": b"", MODULE: code})
    assert errors(report) == ["cxx-runtime-inside"]
    assert report.verdict == "bad"
    # The library itself, and a module that needs it, export what they like.
    itself = library([Sym("__cxa_throw", defined=True)], needed=["libc.so.6"], soname="libstdc++.so.6")
    needs = library(symbols, needed=["libc10.so", "libcudart.so.13", "libstdc++.so.6"], fatbin=machine_code(90, "k"))
    assert errors(audit({"demo/__init__.py": b"", MODULE: needs, "demo.libs/libstdc++.so.6": itself})) == []


def test_a_module_may_ask_for_the_driver(audit: Callable[..., AuditReport]) -> None:
    code = library([Sym(SET_DEVICE), Sym("PyModule_Create2")], needed=["libcuda.so.1"], fatbin=machine_code(90, "k"))
    assert errors(audit({"demo/__init__.py": b"", MODULE: code})) == []


@pytest.mark.parametrize(
    ("plan", "seen"),
    [
        ({"toolchain": {"nvcc": "12.4.131", "cuda": "12.4"}, "target": {"cuda": "12.6"}}, ["nvcc 12.4.131"]),
        ({"toolchain": {"nvcc": "12.6.85", "cuda": "12.6"}, "target": {"cuda": "12.6"}}, []),
        ({"toolchain": {"nvcc": "", "cuda": ""}, "target": {"cuda": ""}}, []),
        ({"toolchain": []}, []),
        ("nothing", []),
    ],
)
def test_a_compiler_of_another_minor_is_stated(
    audit: Callable[..., AuditReport], plan: object, seen: list[str]
) -> None:
    text = json.dumps(plan).encode()
    info = {**metadata(), f"{INFO}/attnforge/plan.json": text}
    report = audit(info=info)
    found = [finding for finding in report.findings if finding.code == "compiler"]
    assert [finding.seen for finding in found] == seen
    assert all("CUDA 12.6" in finding.means for finding in found)
    assert report.verdict == "good"
