from __future__ import annotations

from pathlib import Path

import pytest
from audit_writers import STB_WEAK, Sym, library, torch_site

from attnforge.audit.demangle import demangle
from attnforge.audit.linkage import check_linkage
from attnforge.audit.machine import provides_library, provides_symbol
from attnforge.audit.site import TorchSite
from attnforge.audit.symbols import link
from attnforge.elf import Elf, Reference
from attnforge.errors import HostError
from attnforge.knowledge.glibc import glibc_symbols
from attnforge.model.finding import Finding, Severity

SET_DEVICE = "_ZN3c104cuda9SetDeviceEa"
CHECK_FAIL = "_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"


def _site(folder: Path, *exports: str) -> TorchSite:
    site = TorchSite.find(torch_site(folder, exports))
    assert site is not None
    return site


def _module(*symbols: str, needed: tuple[str, ...] = ("libc10.so",)) -> Elf:
    return Elf.read(library([Sym(symbol) for symbol in symbols], needed=needed))


@pytest.mark.parametrize(
    ("reference", "needed", "provided"),
    [
        (Reference("PyModule_Create2"), (), True),
        (Reference("_PyArg_ParseTuple_SizeT"), (), True),
        (Reference("malloc", "libc.so.6", "GLIBC_2.2.5"), ("libc.so.6",), True),
        (Reference("malloc", "libc.so.6", "GLIBC_2.2.5"), (), False),
        (Reference("_Znwm", "libstdc++.so.6", "GLIBCXX_3.4"), ("libstdc++.so.6",), True),
        (Reference("__cxa_throw", "libstdc++.so.6", "CXXABI_1.3"), ("libstdc++.so.6",), True),
        (Reference("_Unwind_Resume", "libgcc_s.so.1", "GCC_3.0"), ("libgcc_s.so.1",), True),
        (Reference("cudaMalloc", "libcudart.so.12", "libcudart.so.12"), ("libcudart.so.12",), False),
        (Reference("foo", "libfoo.so.1", "GLIBC_2.2.5"), ("libfoo.so.1",), False),
        (Reference("cuLaunchKernel"), ("libcuda.so.1",), True),
        (Reference("cuLaunchKernel"), ("libc.so.6",), False),
        (Reference("cudaLaunchKernel"), ("libcuda.so.1",), False),
        (Reference("cublasCreate_v2"), ("libcuda.so.1",), False),
        (Reference("nvmlInit_v2"), ("libnvidia-ml.so.1",), True),
        (Reference("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv"), ("libstdc++.so.6",), True),
        (Reference("_ZTVSt9exception"), ("libstdc++.so.6",), True),
        (Reference("_ZNKSs4sizeEv"), ("libstdc++.so.6",), True),
        (Reference("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv"), (), False),
        (Reference("_ZNSt6vectorIN3c106SymIntESaIS1_EE3fooEv"), ("libstdc++.so.6",), False),
        (Reference(SET_DEVICE), ("libstdc++.so.6", "libc.so.6"), False),
        (Reference("malloc"), ("libc.so.6",), True),
        (Reference("dlopen"), (), True),
        (Reference("malloc_of_mine"), ("libc.so.6",), False),
    ],
)
def test_what_the_machine_provides(reference: Reference, needed: tuple[str, ...], provided: bool) -> None:
    assert provides_symbol(reference, frozenset(needed)) is provided


@pytest.mark.parametrize(
    ("library_name", "provided"),
    [
        ("libc.so.6", True),
        ("libcuda.so.1", True),
        ("ld-linux-x86-64.so.2", True),
        ("libpython3.12.so.1.0", True),
        ("libpython3.so", True),
        ("libcudart.so.12", False),
        ("libc10.so", False),
        ("libz.so.1", False),
    ],
)
def test_which_libraries_the_machine_provides(library_name: str, provided: bool) -> None:
    assert provides_library(library_name) is provided


def test_symbols_of_needed_libraries_resolve(tmp_path: Path) -> None:
    linkage = link({"a.so": _module(SET_DEVICE)}, _site(tmp_path, SET_DEVICE))
    assert (linkage.checked, linkage.undefined, linkage.unlinked, linkage.absent) == (1, {}, {}, ())


def test_a_symbol_that_nothing_provides(tmp_path: Path) -> None:
    modules = {"a.so": _module(SET_DEVICE, "known"), "b.so": _module(SET_DEVICE)}
    assert link(modules, _site(tmp_path, "known")).undefined == {SET_DEVICE: ("a.so", "b.so")}


def test_weak_symbols_may_stay_undefined(tmp_path: Path) -> None:
    elf = Elf.read(library([Sym("_ITM_registerTMCloneTable", bind=STB_WEAK)]))
    assert link({"a.so": elf}, _site(tmp_path)).checked == 0


def test_modules_of_a_wheel_provide_for_one_another(tmp_path: Path) -> None:
    provider = Elf.read(library([Sym("run_forward", defined=True)], soname="libkernels.so"))
    user = _module("run_forward", needed=("libkernels.so",))
    linkage = link({"pkg/a.so": user, "pkg/libkernels.so": provider}, _site(tmp_path))
    assert (linkage.undefined, linkage.absent) == ({}, ())


def test_libraries_are_found_through_one_another(tmp_path: Path) -> None:
    site = torch_site(tmp_path, ["direct"])
    lib = site / "torch" / "lib"
    (lib / "libtorch.so").write_bytes(library(needed=["libtorch_cpu.so"]))
    (lib / "libtorch_cpu.so").write_bytes(library([Sym("indirect", defined=True)]))
    linkage = link({"a.so": _module("indirect", needed=("libtorch.so",))}, TorchSite.find(site))
    assert (linkage.undefined, linkage.unlinked) == ({}, {})


def test_pytorch_loads_the_cuda_runtime_for_everyone(tmp_path: Path) -> None:
    assert link({"a.so": _module("cudaLaunchKernel", needed=())}, _site(tmp_path)).undefined == {}


def test_a_symbol_in_a_library_that_nothing_leads_to(tmp_path: Path) -> None:
    site = _site(tmp_path, SET_DEVICE)
    linkage = link({"a.so": _module(SET_DEVICE, needed=())}, site)
    assert (linkage.undefined, linkage.unlinked) == ({}, {SET_DEVICE: "libc10.so"})
    assert _codes(list(check_linkage(linkage, site, tmp_path))) == {("symbols-unlinked", "warning"), ("symbols", "ok")}


def test_an_unknown_library_makes_its_symbols_doubtful_but_not_those_of_pytorch(tmp_path: Path) -> None:
    site = _site(tmp_path)
    linkage = link({"a.so": _module("foo_run", SET_DEVICE, needed=("libfoo.so.1",))}, site)
    assert linkage.undefined == {SET_DEVICE: ("a.so",)}
    assert linkage.doubtful == {"foo_run": ("a.so",)}
    codes = _codes(list(check_linkage(linkage, site, tmp_path)))
    assert codes == {("undefined-symbol", "error"), ("symbols-unchecked", "unchecked"), ("library-absent", "warning")}


def test_a_library_that_every_distribution_has_is_no_finding(tmp_path: Path) -> None:
    site = _site(tmp_path)
    linkage = link({"a.so": _module(needed=("libz.so.1",))}, site)
    assert _codes(list(check_linkage(linkage, site, tmp_path))) == {("symbols", "ok")}


def test_another_cuda_than_that_of_pytorch(tmp_path: Path) -> None:
    site = _site(tmp_path)
    modules = {name: _module("cudaLaunchKernel", needed=("libcudart.so.12",)) for name in ("a.so", "b.so")}
    findings = [f for f in check_linkage(link(modules, site), site, tmp_path) if f.severity is Severity.ERROR]
    assert [f.code for f in findings] == ["library-version"]
    assert findings[0].seen == "needs libcudart.so.12; PyTorch brings libcudart.so.13"
    assert findings[0].subject == "a.so, b.so"


@pytest.mark.parametrize(
    ("symbol", "thread"),
    [
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", "/1644"),
        (CHECK_FAIL, "/1644"),
        (SET_DEVICE, "/723"),
        ("_ZN2at4_ops5zeros4callEN3c108ArrayRefINS2_6SymIntEEE", "/1832"),
        ("_ZNK5torch8autograd4Node4nameEv", "/1832"),
        ("cuTensorMapEncodeTiled", "/245"),
        ("something_else", ""),
    ],
)
def test_known_mismatches_say_so_with_the_thread(symbol: str, thread: str, tmp_path: Path) -> None:
    site = _site(tmp_path)
    (finding,) = check_linkage(link({"a.so": _module(symbol)}, site), site, tmp_path)
    assert (finding.code, finding.severity) == ("undefined-symbol", Severity.ERROR)
    assert symbol in finding.seen
    assert finding.link.endswith(thread)
    assert "2.11.0+cu130" in finding.means
    assert finding.hint


def test_without_pytorch_symbols_are_unchecked() -> None:
    (finding,) = check_linkage(link({"a.so": _module(SET_DEVICE)}, None), None, None)
    assert (finding.code, finding.severity) == ("symbols-unchecked", Severity.UNCHECKED)
    assert "--torch" in finding.hint
    assert "--python" in finding.hint


def test_a_folder_without_pytorch_is_none_at_all(tmp_path: Path) -> None:
    assert TorchSite.find(tmp_path) is None
    (finding,) = check_linkage(link({"a.so": _module(SET_DEVICE)}, None), None, tmp_path)
    assert str(tmp_path) in finding.seen


def test_a_module_that_needs_nothing_of_pytorch_needs_no_pytorch() -> None:
    elf = Elf.read(library([Sym("malloc", version=("libc.so.6", "GLIBC_2.2.5"))], needed=["libc.so.6"]))
    assert _codes(list(check_linkage(link({"a.so": elf}, None), None, None))) == {("symbols", "ok")}


@pytest.mark.parametrize("cut", [0, 3, 40, 200])
def test_a_pytorch_that_cannot_be_read_is_no_fault_of_the_wheel(tmp_path: Path, cut: int) -> None:
    """F14: its libraries were cut off, and the wheel was called bad."""
    site = torch_site(tmp_path, [SET_DEVICE])
    damaged = site / "torch" / "lib" / "libc10.so"
    damaged.write_bytes(damaged.read_bytes()[:cut])
    with pytest.raises(HostError, match="PyTorch can't be read") as caught:
        link({"a.so": _module(SET_DEVICE)}, TorchSite.find(site))
    assert str(damaged) in str(caught.value)


def test_a_pytorch_that_is_not_whole_is_no_fault_of_the_wheel(tmp_path: Path) -> None:
    module = _module("_ZN2at5emptyEv", needed=("libtorch_cpu.so", "libc10.so"))
    with pytest.raises(HostError, match=r"libtorch_cpu\.so is not there"):
        link({"a.so": module}, _site(tmp_path))


def test_a_pytorch_without_permission_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    site = _site(tmp_path, SET_DEVICE)
    monkeypatch.setattr("attnforge.audit.site.open_elf", refuse)
    with pytest.raises(HostError, match="PyTorch can't be read"):
        link({"a.so": _module(SET_DEVICE)}, site)


def test_a_script_of_the_linkers_beside_libraries_is_passed_over(tmp_path: Path) -> None:
    site = torch_site(tmp_path, [])
    (site / "torch" / "lib" / "libmore.so").write_text("INPUT(libmore.so.1)\n")
    assert set(link({"a.so": _module(SET_DEVICE)}, TorchSite.find(site)).undefined) == {SET_DEVICE}


@pytest.mark.parametrize("symbol", ["dlopen", "dlsym", "dlclose", "pthread_create", "memcpy", "cbrt", "environ"])
@pytest.mark.parametrize("needed", [("libc10.so",), ("libc10.so", "libc.so.6"), ()])
def test_what_the_c_library_defines_is_there_also_without_a_version(
    tmp_path: Path, symbol: str, needed: tuple[str, ...]
) -> None:
    """F13: a module that was linked without libdl has no version of these."""
    linkage = link({"a.so": _module(symbol, needed=needed)}, _site(tmp_path))
    assert (linkage.checked, linkage.undefined) == (0, {})


def test_other_names_without_a_version_are_still_looked_for(tmp_path: Path) -> None:
    assert set(link({"a.so": _module("dlopen_it", "my_memcpy")}, _site(tmp_path)).undefined) == {
        "dlopen_it",
        "my_memcpy",
    }


def test_the_list_of_the_c_library_is_that_of_this_machine() -> None:
    """Nearly: another glibc has a few more or less."""
    import ctypes

    c, m = ctypes.CDLL("libc.so.6"), ctypes.CDLL("libm.so.6")
    known = glibc_symbols()
    there = [name for name in known if hasattr(c, name) or hasattr(m, name)]
    assert len(known) > 3000 and len(there) > 0.98 * len(known)
    assert not [name for name in known if name.startswith(("cu", "Py", "_Z")) and name not in ("cuserid",)]


def test_the_version_of_pytorch(tmp_path: Path) -> None:
    site = torch_site(tmp_path, version="2.7.1+cu128")
    found = TorchSite.find(site)
    assert found is not None
    assert found.torch == "2.7.1+cu128"
    (site / "torch" / "version.py").unlink()
    assert found.torch == ""


@pytest.mark.parametrize("symbol", ["cudaLaunchKernel", "_Znot_mangled", "_Z", "", "_Z" + "1a" * 5000])
def test_what_cannot_be_demangled_stays(symbol: str) -> None:
    assert demangle(symbol) == symbol


def test_demangled_names_are_readable_where_the_machine_can() -> None:
    assert demangle(SET_DEVICE) in ("c10::cuda::SetDevice(signed char)", SET_DEVICE)


def _codes(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.code, finding.severity.value) for finding in findings}
