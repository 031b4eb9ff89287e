"""Universal wheels: a good one, and for each thing that can be wrong with one a wheel that has that alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_writers import (
    HEX,
    LAUNCH,
    LIBRARY,
    PAIRS,
    SET_DEVICE,
    UNIVERSAL,
    UNIVERSAL_INFO,
    Sym,
    container,
    entry,
    kernels_library,
    library,
    machine_code,
    pair_path,
    pairs_json,
    thin_module,
    torch_site,
    universal_json,
    write_universal,
    write_wheel,
)

from attnforge.audit.metadata import import_name
from attnforge.audit.universal import Place, place_of, told_pairs
from attnforge.audit.wheel import audit_wheel
from attnforge.cli.show import audit_lines
from attnforge.errors import WheelError
from attnforge.model.audit import AuditReport, Expected
from attnforge.model.finding import Finding, Severity
from attnforge.model.universal import Pair

LIBRARY_PATH = f"demo_cuda/{LIBRARY}"
UNIVERSAL_JSON, PLAN_JSON = f"{UNIVERSAL_INFO}/universal.json", f"{UNIVERSAL_INFO}/plan.json"
OLD, NEW = "2.11.0+cu130", "2.12.1+cu130"
Audit = Callable[..., AuditReport]


def pair(torch: str, python: str) -> Pair:
    return Pair(torch=torch, python=python)


@pytest.fixture
def old_site(tmp_path: Path) -> Path:
    return torch_site(tmp_path / "old", [SET_DEVICE], version=OLD)


@pytest.fixture
def new_site(tmp_path: Path) -> Path:
    return torch_site(tmp_path / "new", [SET_DEVICE], version=NEW)


@pytest.fixture
def sites(old_site: Path, new_site: Path) -> list[tuple[Pair, Path]]:
    return [(pair(*one), new_site if one[0] == "2.12.1" else old_site) for one in PAIRS]


@pytest.fixture
def audit(tmp_path: Path, sites: list[tuple[Pair, Path]]) -> Audit:
    """Audit a universal wheel that is good but for the files that are given."""

    def run(
        changed: dict[str, bytes | None] | None = None, *, tag: str = "py3-none-linux_x86_64", **options: object
    ) -> AuditReport:
        wheel = write_universal(tmp_path / "dist", changed or {}, tag=tag)
        return audit_wheel(wheel, **(options or {"sites": sites}))  # type: ignore[arg-type]

    return run


def bad(report: AuditReport) -> list[str]:
    return [finding.code for finding in report.findings if finding.severity is not Severity.OK]


def only(report: AuditReport, code: str) -> Finding:
    """The finding of that code, which is all that there is to say."""
    assert bad(report) == [code]
    return next(finding for finding in report.findings if finding.code == code)


# --- a good one

PLANNED = Expected(architectures=("sm_90",), modules=("demo_cuda",), code={"demo_cuda": ("sm_90",)}, python="py3")


def test_a_good_wheel(audit: Audit, sites: list[tuple[Pair, Path]]) -> None:
    report = audit(sites=sites, expected=PLANNED)
    assert bad(report) == []
    assert (report.verdict, report.undefined, report.platform_tag) == ("good", (), "manylinux_2_28_x86_64")
    told = [(finding.code, finding.subject, finding.seen) for finding in report.findings]
    assert [row for row in told if row[0] in ("universal", "symbols")] == [
        (
            "universal",
            "universal.json",
            "PyTorch 2.11 with Python 3.11, 3.12; PyTorch 2.12 with Python 3.12; modules demo_cuda, libraries 1",
        ),
        ("symbols", f"PyTorch {OLD}, Python 3.11", "2 symbols, all provided"),
        ("symbols", f"PyTorch {OLD}, Python 3.12", "2 symbols, all provided"),
        ("symbols", f"PyTorch {NEW}, Python 3.12", "2 symbols, all provided"),
    ]
    pairs = {module.path: module.pair for module in report.modules}
    assert pairs == {
        LIBRARY_PATH: "",
        pair_path("2.11", "3.11"): "torch2.11-py3.11",
        pair_path("2.11", "3.12"): "torch2.11-py3.12",
        pair_path("2.12", "3.12"): "torch2.12-py3.12",
    }


def test_a_module_inside_of_a_package(tmp_path: Path, old_site: Path) -> None:
    name, folder = f"lib_C-{HEX}.so", "demo/ops/_C"
    pairs = [("2.11.0", "3.12")]
    files = {
        "demo/__init__.py": b"",
        f"{folder}/__init__.py": b"# the loader",
        f"{folder}/{name}": kernels_library(soname=name),
        pair_path("2.11", "3.12", folder): thin_module(["PyInit__C"], needed=[name, "libc10.so", "libc.so.6"]),
        UNIVERSAL_JSON: universal_json(pairs, name="demo.ops._C", library=name),
        PLAN_JSON: json.dumps({"pairs": pairs_json(pairs)}).encode(),
    }
    expected = PLANNED.model_copy(update={"modules": ("demo.ops._C",), "code": {"demo.ops._C": ("sm_90",)}})
    wheel = write_universal(tmp_path, {**dict.fromkeys(_own_paths()), **files})
    assert bad(audit_wheel(wheel, torch_site=old_site, expected=expected)) == []


def _own_paths() -> list[str]:
    pairs = [pair_path(torch.rpartition(".")[0], python) for torch, python in PAIRS]
    return ["demo_cuda/__init__.py", LIBRARY_PATH, *pairs]


def _whole() -> dict[str, bytes | None]:
    """A wheel whose module has no library: upstream's own module for each pair, as its linker makes it."""
    own = {"needed": ["libc10.so", "libcudart.so.13", "libc.so.6"], "rpath": "", "fatbin": machine_code(90, "kernel")}
    module = thin_module(["PyInit_demo_cuda", "_Z10run_kernelPf"], [SET_DEVICE], **own)  # type: ignore[arg-type]
    modules = dict.fromkeys(_own_paths()[2:], module)
    return {LIBRARY_PATH: None, **modules, UNIVERSAL_JSON: universal_json(library="", shared=[], symbols=[])}


def test_modules_without_a_library_have_the_kernels_themselves(audit: Audit, sites: list[tuple[Pair, Path]]) -> None:
    report = audit(_whole(), sites=sites, expected=PLANNED)
    assert bad(report) == []
    assert {module.architectures for module in report.modules} == {("sm_90",)}


def test_modules_with_kernels_of_their_own_beside_a_library(audit: Audit, sites: list[tuple[Pair, Path]]) -> None:
    changed: dict[str, bytes | None] = dict.fromkeys(_own_paths()[2:], thin_module(fatbin=machine_code(80, "own")))
    changed[UNIVERSAL_JSON] = universal_json(own=["csrc/own.cu"])
    both = ("sm_80", "sm_90")
    expected = Expected(architectures=both, code={"demo_cuda": both})
    assert bad(audit(changed, sites=sites, expected=expected)) == []


# --- its pairs


@pytest.mark.parametrize(
    ("plan", "subject", "seen"),
    [
        (PAIRS[:2], "universal.json", "only universal.json names PyTorch 2.12, Python 3.12 (2.12.1)"),
        ((*PAIRS, ("2.13.0", "3.12")), "plan.json", "only plan.json names PyTorch 2.13, Python 3.12 (2.13.0)"),
    ],
)
def test_a_plan_of_other_pairs(plan: tuple[tuple[str, str], ...], subject: str, seen: str, audit: Audit) -> None:
    finding = only(audit({PLAN_JSON: json.dumps({"pairs": pairs_json(plan)}).encode()}), "pair-plan")
    assert (finding.severity, finding.subject, finding.seen) == (Severity.ERROR, subject, seen)


@pytest.mark.parametrize("plan", [None, b"{}", b"[]", b"{", b'{"pairs": [{"python": "2"}]}'])
def test_no_plan_to_hold_it_against(plan: bytes | None, audit: Audit) -> None:
    assert only(audit({PLAN_JSON: plan}), "pair-plan").seen == "no plan with pairs"


def test_a_pair_without_its_module(audit: Audit) -> None:
    finding = only(audit({pair_path("2.12", "3.12"): None}), "pair-missing")
    assert (finding.subject, finding.seen) == ("demo_cuda", "no module for PyTorch 2.12 with Python 3.12")
    assert "attnforge extend" in finding.hint


@pytest.mark.parametrize(
    "path",
    [
        pair_path("2.13", "3.12"),
        f"demo_cuda/libdemo_cuda-{HEX[::-1]}.so",
        "demo_cuda/torch2.11/other.cpython-312-x86_64-linux-gnu.so",
        "other/torch2.11/other.cpython-312-x86_64-linux-gnu.so",
        "demo_cuda/torch2.11/demo_cuda.cpython-312-aarch64-linux-gnu.so",
    ],
)
def test_a_shared_object_that_belongs_to_no_pair(path: str, audit: Audit) -> None:
    report = audit({path: library(needed=["libc.so.6"])})
    (finding,) = [finding for finding in report.findings if finding.code == "pair-unexpected"]
    assert (finding.severity, finding.subject) == (Severity.ERROR, path)


def test_a_module_for_a_python_that_is_no_pair(audit: Audit) -> None:
    assert bad(audit({pair_path("2.11", "3.13"): thin_module()})) == ["module-suffix", "pair-unexpected"]


def test_a_module_for_a_free_threaded_python_is_none_of_a_pair(audit: Audit) -> None:
    report = audit({pair_path("2.11", "3.12").replace("312", "312t"): thin_module()})
    assert {"module-suffix", "pair-unexpected"} <= set(bad(report))


def test_a_wheel_for_several_pythons_under_a_name_of_one(audit: Audit) -> None:
    assert bad(audit(tag="cp312-cp312-linux_x86_64")) == ["module-suffix"]


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"schema": 2, "pairs": [], "modules": []}', b"[" * 100_000])
def test_an_unreadable_description(text: bytes, audit: Audit) -> None:
    with pytest.raises(WheelError, match=r"universal\.json"):
        audit({UNIVERSAL_JSON: text})


# --- its loader


def test_no_loader(audit: Audit) -> None:
    assert only(audit({"demo_cuda/__init__.py": None}), "loader-missing").seen == "no demo_cuda/__init__.py"


@pytest.mark.parametrize("name", ["demo_cuda.cpython-312-x86_64-linux-gnu.so", "demo_cuda.so", "demo_cuda.py"])
def test_upstreams_own_module_beside_the_loader(name: str, audit: Audit) -> None:
    report = audit({name: library(needed=["libc.so.6"]) if name.endswith(".so") else b""})
    assert "loader-beside" in bad(report)
    assert report.verdict == "bad"


# --- from a module to its library


def _with_module(**changes: object) -> dict[str, bytes | None]:
    return {pair_path("2.11", "3.12"): thin_module(**changes)}  # type: ignore[arg-type]


def test_a_module_that_does_not_name_its_library(audit: Audit) -> None:
    finding = only(audit(_with_module(needed=["libc10.so", "libc.so.6"])), "library-unnamed")
    assert (finding.subject, finding.seen) == (pair_path("2.11", "3.12"), f"it does not need {LIBRARY}")


@pytest.mark.parametrize("rpath", ["", "$ORIGIN", "$ORIGIN/../..", "$ORIGIN/../lib"])
def test_a_module_that_does_not_lead_to_its_library(rpath: str, audit: Audit) -> None:
    finding = only(audit(_with_module(rpath=rpath)), "library-path")
    assert (finding.subject, finding.seen) == (pair_path("2.11", "3.12"), f"its RUNPATH is {rpath or 'empty'}")


@pytest.mark.parametrize("rpath", ["$ORIGIN/..", "${ORIGIN}/../", "$ORIGIN/nowhere:$ORIGIN/../../demo_cuda"])
def test_ways_that_lead_to_the_library(rpath: str, audit: Audit) -> None:
    assert bad(audit(_with_module(rpath=rpath))) == []


def test_a_library_that_is_not_there(audit: Audit) -> None:
    report = audit({LIBRARY_PATH: None})
    assert "library-missing" in bad(report)
    assert report.verdict == "bad"


def test_a_library_that_can_not_be_read_is_told_once(audit: Audit) -> None:
    report = audit({LIBRARY_PATH: kernels_library()[:100]})
    assert "module-unreadable" in bad(report)
    assert "library-missing" not in bad(report)


@pytest.mark.parametrize("soname", ["", "libdemo_cuda.so"])
def test_a_library_of_another_soname(soname: str, audit: Audit) -> None:
    finding = only(audit({LIBRARY_PATH: kernels_library(soname=soname)}), "library-soname")
    assert finding.seen == f"its soname is {soname or 'not set'}"


def test_two_libraries_of_one_soname(audit: Audit) -> None:
    other = "demo_kernels.libs/libother.so"
    finding = only(audit({other: library(needed=["libc.so.6"], soname=LIBRARY)}), "library-twice")
    assert finding.subject == f"{LIBRARY_PATH}, {other}"


# --- what the library needs and defines


@pytest.mark.parametrize("name", ["libc10.so", "libtorch_python.so", "libpython3.12.so.1.0", "libcudart.so.13"])
def test_a_library_that_needs_what_each_pair_has_of_its_own(name: str, audit: Audit) -> None:
    changed = {LIBRARY_PATH: kernels_library(needed=[name, "libstdc++.so.6", "libc.so.6"])}
    report = audit(changed)
    (finding,) = [finding for finding in report.findings if finding.code == "library-bound"]
    assert (finding.severity, finding.subject, finding.seen) == (Severity.ERROR, LIBRARY_PATH, f"it needs {name}")


@pytest.mark.parametrize("symbol", [SET_DEVICE, "PyErr_SetString", "cudaLaunchKernel"])
def test_a_library_that_wants_what_each_pair_has_of_its_own(symbol: str, audit: Audit) -> None:
    finding = only(audit({LIBRARY_PATH: kernels_library(wants=[Sym(symbol)])}), "library-bound")
    assert finding.seen.startswith("1 symbols of others: ")


def test_a_library_may_call_the_driver_and_the_machines_libraries(audit: Audit) -> None:
    wants = [Sym("cuTensorMapEncodeTiled"), Sym("_ZNSt8ios_base4InitC1Ev", version=("libstdc++.so.6", "GLIBCXX_3.4"))]
    needed = ["libcuda.so.1", "libstdc++.so.6", "libc.so.6"]
    assert bad(audit({LIBRARY_PATH: kernels_library(wants=wants, needed=needed)})) == []


@pytest.mark.parametrize("name", ["_Z10run_kernelPf", f"_Z5otherv.{HEX[::-1]}", f"_Z5otherv{HEX}"])
def test_a_library_that_defines_names_which_another_copy_may_have(name: str, audit: Audit) -> None:
    finding = only(audit({LIBRARY_PATH: kernels_library([LAUNCH, name])}), "library-exports")
    assert (finding.subject, finding.severity) == (LIBRARY_PATH, Severity.ERROR)


@pytest.mark.parametrize(
    "name", ["libdemo_cuda.so", "../libdemo_cuda-0123456789abcdef.so", "/libx-0123456789abcdef.so"]
)
def test_a_library_without_a_hash_or_from_elsewhere_is_refused(name: str, audit: Audit) -> None:
    with pytest.raises(WheelError, match=r"universal\.json can't be read"):
        audit({UNIVERSAL_JSON: universal_json(library=name)})


def test_a_module_that_defines_more_than_python_asks_for(audit: Audit) -> None:
    finding = only(audit(_with_module(exports=["PyInit_demo_cuda", "mha_fwd"])), "module-exports")
    assert (finding.subject, finding.seen) == (pair_path("2.11", "3.12"), "it defines mha_fwd for others")


@pytest.mark.parametrize("exports", [[], ["PyInit_other"]])
def test_a_module_that_python_does_not_find(exports: list[str], audit: Audit) -> None:
    report = audit(_with_module(exports=exports))
    assert set(bad(report)) == {"module-exports"}
    assert report.findings[[f.code for f in report.findings].index("module-exports")].seen == "no PyInit_demo_cuda"


@pytest.mark.parametrize(("fatbin", "warned"), [(b"", True), (container(entry(1, 90, b".version 9.0")), True)])
def test_a_library_without_machine_code(fatbin: bytes, warned: bool, audit: Audit) -> None:
    assert bad(audit({LIBRARY_PATH: kernels_library(fatbin=fatbin)})) == ["no-machine-code"] * warned


def test_a_library_of_host_code_alone_needs_none(audit: Audit) -> None:
    changed = {LIBRARY_PATH: kernels_library(fatbin=b""), UNIVERSAL_JSON: universal_json(shared=["csrc/host.cpp"])}
    assert bad(audit(changed)) == []


def test_modules_that_should_have_kernels_of_their_own_and_have_none(audit: Audit) -> None:
    assert bad(audit({UNIVERSAL_JSON: universal_json(own=["csrc/own.cu"])})) == ["no-machine-code"] * 3


def test_machine_code_that_was_not_planned(audit: Audit, sites: list[tuple[Pair, Path]]) -> None:
    expected = Expected(code={"demo_cuda": ("sm_80", "sm_90")}, python="py3")
    finding = only(audit(sites=sites, expected=expected), "planned-architectures")
    assert (finding.subject, finding.seen) == (LIBRARY_PATH, "sm_90")


def test_machine_code_that_a_module_without_a_library_lacks(audit: Audit, sites: list[tuple[Pair, Path]]) -> None:
    expected = Expected(code={"demo_cuda": ("sm_80", "sm_90")})
    assert bad(audit(_whole(), sites=sites, expected=expected)) == ["planned-architectures"] * 3


@pytest.mark.parametrize("planned", [{"python": "cp312", "tag": "cp311-cp311-linux_x86_64"}, {"modules": ("other",)}])
def test_what_was_planned_is_not_there(
    planned: dict[str, object], audit: Audit, sites: list[tuple[Pair, Path]]
) -> None:
    tag = str(planned.pop("tag", "py3-none-linux_x86_64"))
    report = audit(tag=tag, sites=sites, expected=Expected.model_validate(planned))
    assert f"planned-{next(iter(planned))}" in bad(report)


# --- its symbols, for each pair


def test_a_symbol_that_one_pytorch_lacks(audit: Audit, tmp_path: Path, old_site: Path) -> None:
    bare = torch_site(tmp_path / "bare", version=NEW)
    sites = [(pair(*one), bare if one[0] == "2.12.1" else old_site) for one in PAIRS]
    report = audit(sites=sites)
    finding = only(report, "undefined-symbol")
    assert finding.subject == pair_path("2.12", "3.12")
    assert f"PyTorch {NEW}, Python 3.12" in finding.means
    assert len(report.undefined) == 1


def test_a_function_of_the_kernels_that_the_library_does_not_have(audit: Audit) -> None:
    gone = f"_Z9run_otherPf.{HEX}"
    finding = only(audit(_with_module(wants=[LAUNCH, SET_DEVICE, gone])), "undefined-symbol")
    assert (finding.subject, finding.hint) == (pair_path("2.11", "3.12"), "build the wheel again")
    assert gone in finding.seen and "library of kernels" in finding.means


def test_a_module_of_another_pair_provides_nothing(audit: Audit) -> None:
    changed = _with_module(wants=[LAUNCH, SET_DEVICE, "helper"])
    changed[pair_path("2.12", "3.12")] = thin_module(["PyInit_demo_cuda", "helper"])
    assert set(bad(audit(changed))) == {"module-exports", "undefined-symbol"}


def test_what_every_interpreter_loads_is_looked_at_with_each(audit: Audit) -> None:
    report = audit({"demo/_host.abi3.so": library([Sym("nowhere")], needed=["libc10.so", "libc.so.6"])})
    assert bad(report) == ["undefined-symbol"] * 3


def test_one_pytorch_is_looked_at_for_all_pythons_and_the_others_are_named(audit: Audit, old_site: Path) -> None:
    report = audit(torch_site=old_site)
    finding = only(report, "pairs-left")
    assert (finding.severity, finding.subject) == (Severity.INFO, "PyTorch 2.12 with Python 3.12")
    looked_at = [finding.subject for finding in report.findings if finding.code == "symbols"]
    assert looked_at == [f"PyTorch {OLD}, Python 3.11", f"PyTorch {OLD}, Python 3.12"]
    assert report.verdict == "good"


def test_pairs_that_were_given_no_pytorch_are_named(audit: Audit, sites: list[tuple[Pair, Path]]) -> None:
    finding = only(audit(sites=sites[1:]), "pairs-left")
    assert finding.subject == "PyTorch 2.11 with Python 3.11"


def test_a_pytorch_that_the_wheel_has_nothing_for(audit: Audit, tmp_path: Path) -> None:
    site = torch_site(tmp_path / "newer", version="2.14.1+cu130")
    for options in ({"torch_site": site}, {"torch": "2.14.0"}):
        report = audit(**options)
        finding = only(report, "pair-absent")
        held = "PyTorch 2.11 with Python 3.11, 3.12; PyTorch 2.12 with Python 3.12"
        assert (finding.subject, finding.seen) == ("PyTorch 2.14", f"the wheel holds modules for {held}")
        assert finding.hint.endswith(f"attnforge extend {UNIVERSAL} --torch 2.14")
        assert report.verdict == "bad"


def test_without_a_pytorch_it_is_unchecked(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert only(audit(torch_site=None), "symbols-unchecked").seen.endswith("no PyTorch was given")
    assert "holds no PyTorch" in only(audit(torch_site=tmp_path / "empty"), "symbols-unchecked").seen


def test_a_pytorch_that_does_not_say_its_version_is_none(audit: Audit, old_site: Path) -> None:
    (old_site / "torch" / "version.py").unlink()
    assert only(audit(torch_site=old_site), "symbols-unchecked").severity is Severity.UNCHECKED


def test_a_plain_wheel_with_such_folders_is_no_universal_one(tmp_path: Path, old_site: Path) -> None:
    files = {path: thin_module() for path in _own_paths()[2:]}
    report = audit_wheel(write_wheel(tmp_path, files, name=UNIVERSAL), torch_site=old_site)
    assert {module.pair for module in report.modules} == {""}
    assert "module-suffix" in bad(report)
    assert not any(code.startswith(("pair", "library-path", "loader")) for code in bad(report))


# --- names and lines


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (pair_path(), "demo_cuda"),
        (pair_path("2.11", "3.12", "a/b/_C"), "a.b._C"),
        (LIBRARY_PATH, "demo_cuda"),
        (f"a/b/_C/lib_C-{HEX}.so", "a.b._C"),
        ("a/torch2.11/b.cpython-312-x86_64-linux-gnu.so", "a.torch2.11.b"),
        (f"other/{LIBRARY}", f"other.libdemo_cuda-{HEX}"),
    ],
)
def test_import_names(path: str, name: str) -> None:
    assert import_name(path) == name


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (pair_path("2.10", "3.14", "a/_C"), Place("a/_C", "2.10", "3.14")),
        (LIBRARY_PATH, None),
        ("demo_cuda/torch2.11/other.cpython-312-x86_64-linux-gnu.so", None),
        ("demo_cuda.cpython-312-x86_64-linux-gnu.so", None),
    ],
)
def test_places(path: str, place: Place | None) -> None:
    assert place_of(path) == place


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([("2.11", "3.12")], "PyTorch 2.11 with Python 3.12"),
        (
            [("2.9", "3.9"), ("2.10", "3.10"), ("2.10", "3.9")],
            "PyTorch 2.9 with Python 3.9; PyTorch 2.10 with Python 3.9, 3.10",
        ),
        ([(t, p) for t in ("2.12", "2.11") for p in ("3.11", "3.10")], "PyTorch 2.11, 2.12 with Python 3.10, 3.11"),
        ([], ""),
    ],
)
def test_how_pairs_are_named(pairs: list[tuple[str, str]], text: str) -> None:
    assert told_pairs(pairs) == text


def test_modules_of_pairs_are_one_line(audit: Audit) -> None:
    lines = list(
        audit_lines(audit({pair_path("2.12", "3.12"): thin_module(wants=[LAUNCH, SET_DEVICE, "PyErr_" * 400])}))
    )
    assert lines[1].startswith(f"  {LIBRARY_PATH}  ")
    assert lines[2] == "    machine code sm_90"
    assert lines[4].startswith("  demo_cuda  3 modules of ") and " to " in lines[4]
    assert lines[4].endswith(": PyTorch 2.11 with Python 3.11, 3.12; PyTorch 2.12 with Python 3.12")
    assert lines[5].startswith("  platform ")
    assert len(lines) == 9
    assert all(line.startswith("  symbols    PyTorch 2.1") and "symbols, all provided" in line for line in lines[6:])


def test_kernels_of_modules_without_a_library_are_shown_once(audit: Audit) -> None:
    lines = list(audit_lines(audit(_whole())))
    assert lines[1].startswith("  demo_cuda  3 modules of ") and " to " not in lines[1]
    assert lines[2] == "    machine code sm_90" and lines[3].startswith("  platform ")
