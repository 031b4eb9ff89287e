from __future__ import annotations

import pytest
from audit_writers import Sym, library

from attnforge.audit.expected import check_expected
from attnforge.audit.manylinux import platform_of, satisfied_by
from attnforge.audit.metadata import (
    check_metadata,
    check_module,
    check_name,
    check_tags,
    import_name,
    module_tags,
)
from attnforge.audit.record import check_record, listed
from attnforge.elf import Elf
from attnforge.model.audit import Expected, ModuleReport
from attnforge.model.finding import Severity
from attnforge.wheelfile.name import WheelName
from attnforge.wheelfile.record import encode, parse_record

X86, ARM = 62, 183


def _name(tags: str = "cp311-cp311-linux_x86_64", version: str = "2.8.3") -> WheelName:
    name = WheelName.parse(f"flash_attn-{version}-{tags}.whl")
    assert name is not None
    return name


@pytest.mark.parametrize(
    "file_name", ["flash_attn.whl", "flash_attn-2.8.3.tar.gz", "a-b-c-d-e.whl", "flash attn-1-py3-none-any.whl"]
)
def test_names_that_installers_refuse(file_name: str) -> None:
    name = WheelName.parse(file_name)
    assert name is None
    assert [f.code for f in check_name(file_name, name)] == ["wheel-name"]


def test_a_good_name_is_no_finding() -> None:
    assert list(check_name("flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl", _name())) == []


@pytest.mark.parametrize(
    ("dist_info", "text", "codes"),
    [
        ("flash_attn-2.8.3.dist-info", "Name: flash-attn\nVersion: 2.8.3\n", []),
        ("flash_attn-2.8.3.dist-info", "Name: Flash_Attn\nVersion: 2.8.3.0\n", []),
        ("flash_attn-2.8.3.dist-info", "Name: flash-attn\nVersion: 2.8.3+cu130\n", ["metadata-name"]),
        ("flash_attn-2.8.3.dist-info", "Name: other\nVersion: 2.8.3\n", ["metadata-name"]),
        ("flash_attn-2.8.3.dist-info", "", ["metadata-name"]),
        ("flash_attn-2.8.3.dist-info", "Name: flash-attn\nVersion: not a version\n", ["metadata-name"]),
        ("flash_attn-2.8.2.dist-info", "Name: flash-attn\nVersion: 2.8.3\n", ["dist-info-name"]),
    ],
)
def test_name_and_version_agree(dist_info: str, text: str, codes: list[str]) -> None:
    assert [f.code for f in check_metadata(_name(), dist_info, text)] == codes


@pytest.mark.parametrize(
    ("tags", "text", "codes"),
    [
        ("cp311-cp311-linux_x86_64", "Tag: cp311-cp311-linux_x86_64\n", []),
        ("py2.py3-none-any", "Tag: py2-none-any\nTag: py3-none-any\n", []),
        ("py2.py3-none-any", "Tag: py2.py3-none-any\n", []),
        ("py2.py3-none-any", "Tag: py3-none-any\n", ["wheel-tags"]),
        ("cp311-cp311-linux_x86_64", "Tag: cp312-cp312-linux_x86_64\n", ["wheel-tags"]),
        ("cp311-cp311-linux_x86_64", "", ["wheel-tags"]),
        ("cp311-cp311-linux_x86_64", "Tag: nonsense\n", ["wheel-tags"]),
        ("cp311-cp311-linux_x86_64", "Tag: cp311-cp311-linux_x86_64\nRoot-Is-Purelib: True\n", ["purelib"]),
    ],
)
def test_tags_agree(tags: str, text: str, codes: list[str]) -> None:
    assert [f.code for f in check_tags(_name(tags), text, compiled=True)] == codes


@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so", ("cp312", "cp312")),
        ("a/b.cpython-313t-x86_64-linux-gnu.so", ("cp313", "cp313t")),
        ("flash_attn_3/_C.abi3.so", ("", "abi3")),
        ("xformers/_C.so", None),
        ("pkg.libs/libgomp-a34b3233.so.1", None),
        ("m.pypy310-pp73-x86_64-linux-gnu.so", ("pp310", "pp310")),
        ("m.cpython-37m-x86_64-linux-gnu.so", ("cp37", "cp37m")),
    ],
)
def test_what_a_suffix_says(path: str, tags: tuple[str, str] | None) -> None:
    assert module_tags(path) == tags


@pytest.mark.parametrize(
    ("tags", "module", "codes"),
    [
        ("cp311-cp311-linux_x86_64", "m.cpython-311-x86_64-linux-gnu.so", []),
        ("cp311-cp311-linux_x86_64", "m.cpython-312-x86_64-linux-gnu.so", ["module-suffix"]),
        ("cp311-cp311-linux_x86_64", "m.abi3.so", []),
        ("cp39-abi3-linux_x86_64", "m.abi3.so", []),
        ("cp39-abi3-linux_x86_64", "m.cpython-39-x86_64-linux-gnu.so", ["module-suffix"]),
        ("cp313-cp313t-linux_x86_64", "m.cpython-313t-x86_64-linux-gnu.so", []),
        ("cp313-cp313-linux_x86_64", "m.cpython-313t-x86_64-linux-gnu.so", ["module-suffix"]),
        ("cp313-cp313t-linux_x86_64", "m.abi3.so", ["module-suffix"]),
        ("py3-none-linux_x86_64", "m.so", []),
        ("py3-none-linux_x86_64", "m.cpython-311-x86_64-linux-gnu.so", ["module-suffix"]),
        ("cp311-cp311-manylinux_2_17_aarch64", "m.so", ["module-machine"]),
        ("py3-none-any", "m.so", ["module-machine"]),
    ],
)
def test_modules_fit_the_tags(tags: str, module: str, codes: list[str]) -> None:
    assert [f.code for f in check_module(_name(tags), module, Elf.read(library()))] == codes


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so", "flash_attn_2_cuda"),
        ("flash_attn_3/_C.abi3.so", "flash_attn_3._C"),
        ("pkg-1.0.data/platlib/pkg/_C.so", "pkg._C"),
    ],
)
def test_import_names(path: str, name: str) -> None:
    assert import_name(path) == name


@pytest.mark.parametrize(
    ("tags", "python", "good"),
    [
        ("cp311-cp311-linux_x86_64", "cp311", True),
        ("cp311-cp311-linux_x86_64", "cp312", False),
        ("cp39-abi3-linux_x86_64", "cp312", True),
        ("cp312-abi3-linux_x86_64", "cp39", False),
        ("py3-none-any", "cp312", True),
        ("cp314-cp314t-linux_x86_64", "cp314t", True),
        ("cp314-cp314t-linux_x86_64", "cp314", False),
        ("cp314-cp314-linux_x86_64", "cp314t", False),
        ("cp39-abi3-linux_x86_64", "cp314t", False),
        ("py3-none-any", "cp314t", True),
    ],
)
def test_which_python_a_wheel_serves(tags: str, python: str, good: bool) -> None:
    assert _name(tags).serves(python) is good


MODULE = ModuleReport(
    path="flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so", architectures=("sm_80", "sm_90"), size=1
)


@pytest.mark.parametrize(
    ("expected", "codes"),
    [
        (Expected(), []),
        (Expected(architectures=("sm_90", "sm_80"), modules=("flash_attn_2_cuda",), python="cp311"), []),
        (Expected(architectures=("sm_90",)), ["planned-architectures"]),
        (Expected(architectures=("sm_80", "sm_90a")), ["planned-architectures"]),
        (Expected(architectures=("sm_80", "sm_90", "sm_100")), ["planned-architectures"]),
        (Expected(modules=("flash_attn_2_cuda", "flash_attn_3._C")), ["planned-modules"]),
        (Expected(python="cp312"), ["planned-python"]),
        (Expected(code={"flash_attn_2_cuda": ("sm_90", "sm_80")}), []),
        (Expected(code={"flash_attn_2_cuda": ("sm_90",)}), ["planned-architectures"]),
        (Expected(code={"another": ("sm_90",)}), []),
    ],
)
def test_what_was_planned(expected: Expected, codes: list[str]) -> None:
    findings = list(check_expected(expected, [MODULE], _name()))
    assert [f.code for f in findings] == codes
    assert all(f.severity is Severity.ERROR for f in findings)


INFO = "demo-1.0.dist-info"
SHA = encode(bytes(32))


@pytest.mark.parametrize(
    ("record", "files", "codes"),
    [
        (f"a.py,sha256={SHA},3\n{INFO}/RECORD,,\n", {"a.py": (3, SHA), f"{INFO}/RECORD": (9, "x")}, ["record"]),
        (f'"a,b.py",sha256={SHA},3\n', {"a,b.py": (3, SHA)}, ["record"]),
        (f"a.py,sha256={SHA},\n", {"a.py": (3, SHA)}, ["record"]),
        (f"a.py,sha256={SHA}=,3\n", {"a.py": (3, SHA)}, ["record"]),
        (f"a.py,sha256={SHA},4\n", {"a.py": (3, SHA)}, ["record-hash"]),
        (f"a.py,sha256={SHA},3\n", {"a.py": (3, "other")}, ["record-hash"]),
        ("a.py,md5=abc,3\n", {"a.py": (3, SHA)}, ["record-weak-hash"]),
        ("a.py,,\n", {"a.py": (3, SHA)}, ["record-weak-hash"]),
        (f"b.py,sha256={SHA},3\n", {}, ["record-missing-file"]),
        ("", {"a.py": (3, SHA)}, ["record-unlisted-file"]),
        (f"a.py,sha256={SHA},3\na.py,sha256={SHA},3\n", {"a.py": (3, SHA)}, ["record-malformed"]),
        (f"a.py,sha256={SHA}\n", {}, ["record-malformed"]),
    ],
)
def test_record(record: str, files: dict[str, tuple[int, str]], codes: list[str]) -> None:
    rows, bad = parse_record(record)
    assert [f.code for f in check_record(rows, bad, files, INFO)] == codes


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a", "b"], "a, b"), (list("abcdefgh"), "a, b, c, d, e and 3 more")]
)
def test_long_lists_are_cut(names: list[str], text: str) -> None:
    assert listed(names) == text


def _modules(*versions: tuple[str, str], needed: tuple[str, ...] = (), machine: int = X86) -> dict[str, Elf]:
    symbols = [Sym(f"s{number}", version=version) for number, version in enumerate(versions)]
    libraries = {library for library, _ in versions} | set(needed)
    return {"m.so": Elf.read(library(symbols, needed=sorted(libraries), machine=machine))}


@pytest.mark.parametrize(
    ("modules", "tag", "glibc", "glibcxx"),
    [
        (_modules(), "manylinux_2_5_x86_64", "", ""),
        (_modules(("libc.so.6", "GLIBC_2.2.5"), ("libc.so.6", "GLIBC_2.28")), "manylinux_2_28_x86_64", "2.28", ""),
        (_modules(("libc.so.6", "GLIBC_2.9"), ("libc.so.6", "GLIBC_2.14")), "manylinux_2_17_x86_64", "2.14", ""),
        (_modules(("libc.so.6", "GLIBC_2.34")), "manylinux_2_34_x86_64", "2.34", ""),
        (
            _modules(("libstdc++.so.6", "GLIBCXX_3.4.9"), ("libstdc++.so.6", "GLIBCXX_3.4.22")),
            "manylinux_2_24_x86_64",
            "",
            "3.4.22",
        ),
        (_modules(("libc.so.6", "GLIBC_PRIVATE")), "linux_x86_64", "", ""),
        (_modules(("libc.so.6", "GLIBC_2.28"), machine=ARM), "manylinux_2_28_aarch64", "2.28", ""),
        (_modules(needed=("libfoo.so.1",)), "linux_x86_64", "", ""),
        (
            _modules(("libcudart.so.13", "libcudart.so.13"), needed=("libc10.so", "libtorch_cuda.so", "libcuda.so.1")),
            "manylinux_2_5_x86_64",
            "",
            "",
        ),
        ({}, "any", "", ""),
    ],
)
def test_platform(modules: dict[str, Elf], tag: str, glibc: str, glibcxx: str) -> None:
    platform = platform_of(modules)
    assert (platform.tag, platform.glibc, platform.glibcxx) == (tag, glibc, glibcxx)


def test_the_library_that_keeps_a_wheel_from_manylinux_is_named() -> None:
    assert platform_of(_modules(needed=("libfoo.so.1", "libz.so.1"))).reasons == ("libfoo.so.1",)


def test_a_private_symbol_of_an_allowed_library_keeps_a_wheel_from_manylinux() -> None:
    elf = Elf.read(library([Sym("inflate_fast")], needed=["libz.so.1"]))
    assert platform_of({"m.so": elf}).tag == "linux_x86_64"


@pytest.mark.parametrize(
    ("needs", "claimed", "good"),
    [
        ("manylinux_2_28_x86_64", "manylinux_2_28_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux2014_x86_64", True),
        ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", False),
        ("manylinux_2_28_x86_64", "manylinux2014_x86_64", False),
        ("manylinux_2_34_x86_64", "linux_x86_64", True),
        ("linux_x86_64", "manylinux_2_28_x86_64", False),
        ("linux_x86_64", "linux_x86_64", True),
        ("linux_x86_64", "any", False),
        ("any", "any", True),
    ],
)
def test_which_promises_hold(needs: str, claimed: str, good: bool) -> None:
    assert satisfied_by(needs, claimed) is good


def test_a_module_that_lacks_what_the_others_have_is_named() -> None:
    modules = [
        ModuleReport(path=f"pkg/{name}.so", architectures=codes, size=1)
        for name, codes in (("_a", ("sm_89", "sm_90a")), ("_b", ("sm_90a",)), ("_c", ("sm_90a",)), ("_host", ()))
    ]
    both = ("sm_89", "sm_90a")
    code = {"pkg._a": both, "pkg._b": ("sm_90a",), "pkg._c": both, "pkg._host": both}
    expected = Expected(architectures=both, modules=tuple(code), code=code)
    (finding,) = check_expected(expected, modules, None)
    assert (finding.code, finding.subject, finding.seen) == ("planned-architectures", "pkg/_c.so", "sm_90a")
    assert "sm_89, sm_90a" in finding.means
