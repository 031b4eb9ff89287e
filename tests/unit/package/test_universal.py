from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from attnforge.audit.wheel import audit_wheel
from attnforge.errors import BuildError, RequestError, WheelError
from attnforge.model.minors import specifier as minors_specifier
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Pair, Universal, UniversalModule, sorted_pairs
from attnforge.package.archive import Member, read_members, write_wheel
from attnforge.package.metadata import rebind, retag, torch_requirements
from attnforge.package.sbom import Vendored
from attnforge.package.universal import extend_wheel, loader, package_universal
from attnforge.wheelfile.embedded import parse_universal, read_universal

LIBRARY = "libflash_attn_2_cuda-0123456789abcdef.so"
CUTLASS = (Vendored("cutlass", "4.0.0", "BSD-3-Clause"),)
METADATA = """\
Metadata-Version: 2.4
Name: flash_attn
Version: 2.8.3
Summary: Flash Attention
Requires-Python: >=3.9
Classifier: License :: OSI Approved :: BSD License
Requires-Dist: torch
Requires-Dist: einops
Requires-Dist: torch; extra == "cpu"

Requires-Dist: torch
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: setuptools (80.9.0)\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n\n"


def pairs(*slugs: str) -> tuple[Pair, ...]:
    """``2.11/3.12`` and so on."""
    return sorted_pairs(Pair(torch=f"{torch}.0", python=python) for torch, python in (s.split("/") for s in slugs))


def every(torches: tuple[str, ...], pythons: tuple[str, ...]) -> tuple[Pair, ...]:
    return pairs(*(f"{torch}/{python}" for torch, python in product(torches, pythons)))


ALL = every(("2.11", "2.12"), ("3.10", "3.12"))


def universal_of(held: tuple[Pair, ...]) -> Universal:
    first = UniversalModule(
        name="flash_attn_2_cuda", library=LIBRARY, shared=("csrc/a.cu",), own=("csrc/b.cu",), symbols=("run",)
    )
    return Universal(pairs=held, modules=(first, UniversalModule(name="flash_attn.ops._C", own=("csrc/c.cu",))))


def built_for(held: tuple[Pair, ...], *, library: bool = True) -> dict[str, bytes]:
    files = {f"flash_attn_2_cuda/{LIBRARY}": b"kernels"} if library else {}
    for pair in held:
        suffix = f"cpython-3{pair.python.removeprefix('3.')}-x86_64-linux-gnu.so"
        for folder, leaf in (("flash_attn_2_cuda", "flash_attn_2_cuda"), ("flash_attn/ops/_C", "_C")):
            files[f"{folder}/{pair.folder}/{leaf}.{suffix}"] = f"{leaf} {pair.slug}".encode()
    return files


def upstream(folder: Path, metadata: str = METADATA, more: Mapping[str, bytes] = MappingProxyType({})) -> Path:
    info = "flash_attn-2.8.3.dist-info"
    path = folder / "flash_attn-2.8.3-cp310-cp310-linux_x86_64.whl"
    members = {
        "flash_attn/__init__.py": b"__version__ = '2.8.3'\n",
        "flash_attn/ops/_C.abi3.so": b"upstream's",
        "flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so": b"upstream's",
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": WHEEL.encode(),
        f"{info}/top_level.txt": b"flash_attn\nflash_attn_2_cuda\n",
        **more,
    }
    write_wheel(path, {name: Member(data, name.endswith(".so")) for name, data in members.items()}, info)
    return path


@pytest.fixture
def plan_for(make_plan: Callable[..., BuildPlan]) -> Callable[..., BuildPlan]:
    """The plan of a universal wheel for these pairs."""

    def make(held: tuple[Pair, ...] = ALL, **changes: Any) -> BuildPlan:
        plan = make_plan()
        target = plan.target.model_copy(update={"python": held[0].python, "torch": held[0].torch})
        label = f"cu130torch{held[0].torch_minor}to{held[-1].torch_minor}.sm80.sm90"
        return plan.model_copy(update={"target": target, "pairs": held, "label": label, **changes})

    return make


@pytest.fixture
def packed(tmp_path: Path, plan_for: Callable[..., BuildPlan]) -> Callable[..., Path]:
    """Pack a universal wheel of these pairs into a folder of its own."""

    def pack(held: tuple[Pair, ...] = ALL, *, metadata: str = METADATA, name: str = "out", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        plan = plan_for(held, **changes)
        universal, built = universal_of(held), built_for(held)
        return package_universal(upstream(tmp_path, metadata), folder, plan, universal, built, "attnforge 1", CUTLASS)

    return pack


def information(wheel: Path) -> dict[str, bytes]:
    """The files of dist-info by their paths in it."""
    members = read_members(wheel)
    return {path.partition(".dist-info/")[2]: one.data for path, one in members.items() if ".dist-info/" in path}


# --- what is packed


def test_the_wheel_is_named_by_the_plan_and_for_any_python(packed: Callable[..., Path]) -> None:
    wheel = packed()
    assert wheel.name == "flash_attn-2.8.3+cu130torch2.11to2.12.sm80.sm90-py3-none-linux_x86_64.whl"
    inside = information(wheel)
    assert inside["WHEEL"].decode() == (
        "Wheel-Version: 1.0\nGenerator: setuptools (80.9.0)\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n"
    )
    assert b"Version: 2.8.3+cu130torch2.11to2.12.sm80.sm90\n" in inside["METADATA"]


def test_upstreams_modules_give_way_to_packages(packed: Callable[..., Path]) -> None:
    wheel = packed()
    members = read_members(wheel)
    files = {path: member for path, member in members.items() if ".dist-info/" not in path}
    built = built_for(ALL)
    loaders = {"flash_attn_2_cuda/__init__.py", "flash_attn/ops/_C/__init__.py"}
    assert files.keys() == {"flash_attn/__init__.py", *built, *loaders}
    assert all(files[path] == Member(data, executable=True) for path, data in built.items())
    assert all(files[path] == Member(loader(wheel.name, "13.0")) for path in loaders)


def test_the_loader_is_the_source_that_is_tested_and_one_call() -> None:
    from attnforge.inwheel import loader as module

    made = loader("x-1-py3-none-any.whl", "13.0").decode()
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert made == source + "\n\nload(__name__, __file__, wheel='x-1-py3-none-any.whl', cuda='13.0')\n"
    compile(made, "__init__.py", "exec")


def test_the_documents_tell_of_each_pair(packed: Callable[..., Path], plan_for: Callable[..., BuildPlan]) -> None:
    inside = information(packed())
    plan, universal = plan_for(), universal_of(ALL)
    assert BuildPlan.model_validate_json(inside["attnforge/plan.json"]) == plan
    assert Universal.model_validate_json(inside["attnforge/universal.json"]) == universal
    held = [pair.to_json() for pair in ALL]
    assert json.loads(inside["attnforge/provenance.json"])["pairs"] == held
    assert json.loads(inside["attnforge/coverage.json"])["universal"] == {
        "pairs": held,
        "modules": [
            {"name": "flash_attn_2_cuda", "library": LIBRARY, "own": ["csrc/b.cu"]},
            {"name": "flash_attn.ops._C", "library": "", "own": ["csrc/c.cu"]},
        ],
    }


def test_the_same_inputs_give_the_same_bytes(packed: Callable[..., Path]) -> None:
    assert packed(name="a").read_bytes() == packed(name="b").read_bytes()


def test_the_audit_finds_nothing_wrong_with_its_metadata(packed: Callable[..., Path]) -> None:
    report = audit_wheel(packed(), torch_site=None)
    codes = {finding.code for finding in report.findings if finding.severity.value == "error"}
    # The modules of this test are no ELF files.
    assert codes == {"module-unreadable"}
    assert "record" in {finding.code for finding in report.findings}


def test_without_a_label_upstreams_version_stays(packed: Callable[..., Path]) -> None:
    assert packed(label="").name == "flash_attn-2.8.3-py3-none-linux_x86_64.whl"


# --- what is refused


@pytest.mark.parametrize("path", sorted(built_for(ALL)))
def test_each_file_has_to_be_there(tmp_path: Path, plan_for: Callable[..., BuildPlan], path: str) -> None:
    built = {name: data for name, data in built_for(ALL).items() if name != path}
    with pytest.raises(BuildError, match="there is no"):
        package_universal(upstream(tmp_path), tmp_path, plan_for(), universal_of(ALL), built, "x")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_missing_pair_is_named(tmp_path: Path, plan_for: Callable[..., BuildPlan]) -> None:
    built = built_for(ALL[:-1])
    with pytest.raises(BuildError, match="no module flash_attn_2_cuda for PyTorch 2.12, Python 3.12"):
        package_universal(upstream(tmp_path), tmp_path, plan_for(), universal_of(ALL), built, "x")


def test_a_module_that_upstream_did_not_pack_is_an_error(tmp_path: Path, plan_for: Callable[..., BuildPlan]) -> None:
    universal = Universal(pairs=ALL, modules=(UniversalModule(name="other"),))
    with pytest.raises(BuildError, match="has no module other"):
        package_universal(upstream(tmp_path), tmp_path, plan_for(), universal, {}, "x")


@pytest.mark.parametrize("name", ["rotary.cpython-310-x86_64-linux-gnu.so", "flash_attn/lib/libx.so.1"])
def test_a_module_that_the_universal_wheel_lacks_is_an_error(
    tmp_path: Path, plan_for: Callable[..., BuildPlan], name: str
) -> None:
    source = upstream(tmp_path, more={name: b"upstream's"})
    with pytest.raises(BuildError, match="no counterpart") as raised:
        package_universal(source, tmp_path, plan_for(), universal_of(ALL), built_for(ALL), "x")
    assert name in str(raised.value)


# --- what is added to a wheel


@pytest.mark.parametrize(
    ("before", "metadata"),
    [
        (ALL[:1], METADATA),
        (ALL[1:], METADATA),
        (pairs("2.11/3.12", "2.12/3.10"), METADATA),
        (ALL[:2], METADATA.replace("Requires-Dist: torch\nRequires-Dist: einops\n", "Requires-Dist: einops\n")),
        (ALL[:2], METADATA.partition("\n\n")[0] + "\n"),
        (ALL[:2], METADATA.partition("\n\n")[0].replace("Requires-Python: >=3.9\n", "")),
        (ALL[:2], METADATA.replace("Requires-Dist: einops\n", "Requires-Dist: einops\nRequires-Dist: torch>=2.0\n")),
    ],
)
def test_an_extended_wheel_has_the_bytes_of_one_made_at_once(
    packed: Callable[..., Path],
    plan_for: Callable[..., BuildPlan],
    tmp_path: Path,
    before: tuple[Pair, ...],
    metadata: str,
) -> None:
    at_once = packed(metadata=metadata)
    small = packed(before, metadata=metadata, name="small")
    further = tuple(pair for pair in ALL if pair not in before)
    built = built_for(further, library=False)
    wheel = extend_wheel(small, tmp_path, plan_for(), universal_of(ALL), built, "attnforge 1", CUTLASS)
    assert wheel.name == at_once.name
    assert wheel.read_bytes() == at_once.read_bytes()


@pytest.mark.parametrize(("old", "new"), [("", ""), ("mine", ""), ("", "mine"), ("mine", "yours")])
def test_so_it_has_whatever_the_labels_are(
    packed: Callable[..., Path], plan_for: Callable[..., BuildPlan], tmp_path: Path, old: str, new: str
) -> None:
    at_once = packed(label=new)
    small = packed(ALL[:1], label=old, name="small")
    (tmp_path / "extended").mkdir()
    plan, built = plan_for(label=new), built_for(ALL[1:], library=False)
    wheel = extend_wheel(small, tmp_path / "extended", plan, universal_of(ALL), built, "attnforge 1", CUTLASS)
    assert (wheel.name, wheel.read_bytes()) == (at_once.name, at_once.read_bytes())


def test_what_is_in_a_wheel_is_not_replaced(
    packed: Callable[..., Path], plan_for: Callable[..., BuildPlan], tmp_path: Path
) -> None:
    small = packed(ALL[:1])
    built = {**built_for(ALL), f"flash_attn_2_cuda/{LIBRARY}": b"other kernels"}
    with pytest.raises(BuildError, match=f"has flash_attn_2_cuda/{LIBRARY} already"):
        extend_wheel(small, tmp_path, plan_for(), universal_of(ALL), built, "x")


def test_a_damaged_wheel_is_not_extended(plan_for: Callable[..., BuildPlan], tmp_path: Path) -> None:
    wheel = tmp_path / "flash_attn-2.8.3-py3-none-linux_x86_64.whl"
    wheel.write_bytes(b"PK")
    with pytest.raises(WheelError, match="no wheel"):
        extend_wheel(wheel, tmp_path, plan_for(), universal_of(ALL), {}, "x")


# --- METADATA


def test_one_requirement_where_every_python_has_the_same_pytorch() -> None:
    metadata = rebind(METADATA, "2.8.3+x", every(("2.11", "2.12", "2.13"), ("3.10", "3.11", "3.12", "3.13")))
    assert metadata == (
        METADATA.replace("2.8.3", "2.8.3+x")
        .replace(">=3.9", ">=3.10,<3.14")
        .replace(
            "Requires-Dist: torch\nRequires-Dist: einops", "Requires-Dist: torch<2.14,>=2.11\nRequires-Dist: einops"
        )
    )


def test_holes_are_excluded() -> None:
    held = every(("2.11", "2.13"), ("3.10", "3.12", "3.13"))
    metadata = rebind(METADATA, "1", held)
    assert "Requires-Python: >=3.10,<3.14,!=3.11.*\n" in metadata
    assert torch_requirements(held) == ("torch!=2.12.*,<2.14,>=2.11",)


def test_one_requirement_for_each_python_where_they_differ() -> None:
    held = pairs("2.11/3.10", "2.11/3.12", "2.12/3.12", "2.13/3.9")
    lines = rebind(METADATA, "1", held).partition("\n\n")[0].splitlines()
    assert lines[-5:] == [
        'Requires-Dist: torch==2.13.*; python_version == "3.9"',
        'Requires-Dist: torch==2.11.*; python_version == "3.10"',
        'Requires-Dist: torch<2.13,>=2.11; python_version == "3.12"',
        "Requires-Dist: einops",
        'Requires-Dist: torch; extra == "cpu"',
    ]


def test_pythons_and_pytorch_are_stated_where_upstream_does_not() -> None:
    assert rebind("Name: x\nVersion: 1\n", "1+y", pairs("2.11/3.12")) == (
        "Name: x\nVersion: 1+y\nRequires-Python: ==3.12.*\nRequires-Dist: torch==2.11.*\n"
    )


def test_a_wheel_file_without_the_line_says_that_it_is_for_platform_libraries() -> None:
    assert retag("Wheel-Version: 1.0\nTag: a\nTag: b\n", "py3-none-x") == (
        "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-x\n"
    )


some = st.sets(st.integers(0, 30), min_size=1, max_size=8)


@given(some, st.integers(0, 9))
def test_a_specifier_has_each_minor_that_is_held_and_no_other(minors: set[int], major: int) -> None:
    specifier = SpecifierSet(minors_specifier(f"{major}.{minor}" for minor in minors))
    for minor in range(33):
        for patch in ("", ".0", ".7", ".1+cu130"):
            assert specifier.contains(f"{major}.{minor}{patch}") is (minor in minors)
    assert not specifier.contains(f"{major + 1}.0")


held_pairs = st.sets(st.tuples(st.integers(5, 14), st.integers(9, 14)), min_size=1, max_size=12)


@given(held_pairs, held_pairs)
def test_an_installer_takes_exactly_the_pairs_that_are_held(
    one: set[tuple[int, int]], two: set[tuple[int, int]]
) -> None:
    held = pairs(*(f"2.{torch}/3.{python}" for torch, python in one))
    metadata = rebind(METADATA, "1", held)
    lines = [
        line.partition(": ")[2] for line in metadata.partition("\n\n")[0].splitlines() if line[:12] == "Requires-Dis"
    ]
    asked = [Requirement(line) for line in lines if line.startswith("torch") and "extra" not in line]
    pythons = SpecifierSet(
        next(line for line in metadata.splitlines() if line.startswith("Requires-P")).partition(": ")[2]
    )
    for torch, python in product(range(4, 16), range(8, 16)):
        here = {"python_version": f"3.{python}"}
        applies = [need for need in asked if need.marker is None or need.marker.evaluate(here)]
        fits = all(need.specifier.contains(f"2.{torch}.1") for need in applies)
        assert (pythons.contains(f"3.{python}.2") and fits) is ((torch, python) in one)
    # From a wheel for other pairs the same follows.
    other = rebind(METADATA, "0", pairs(*(f"2.{torch}/3.{python}" for torch, python in two)))
    assert rebind(other, "1", held) == metadata


# --- what it says of itself


def test_what_a_wheel_holds_is_read(packed: Callable[..., Path], tmp_path: Path) -> None:
    assert read_universal(packed()) == universal_of(ALL)
    assert read_universal(upstream(tmp_path)) is None


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"{", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b'{"schema": 2, "pairs": [], "modules": []}', "schema: Input should be 1"),
        (b'{"schema": 1, "pairs": [{"python": "3", "torch": "2.11"}], "modules": []}', "pairs.0.python"),
        (b'{"schema": 1, "pairs": [], "modules": [], "more": 1}', "more: "),
    ],
)
def test_a_damaged_document_is_the_wheels_fault(tmp_path: Path, document: bytes, why: str) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    write_wheel(wheel, {"x-1.dist-info/attnforge/universal.json": Member(document)}, "x-1.dist-info")
    with pytest.raises(WheelError, match=r"universal\.json can't be read") as raised:
        read_universal(wheel)
    assert why in raised.value.why
    with pytest.raises(WheelError, match="elsewhere"):
        parse_universal(document, "elsewhere")


def test_a_damaged_wheel_is_told_from_one_that_is_not_there(tmp_path: Path, packed: Callable[..., Path]) -> None:
    with pytest.raises(RequestError, match="no file"):
        read_universal(tmp_path / "absent.whl")
    wheel = packed()
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(WheelError, match="zip"):
        read_universal(wheel)


def test_a_document_with_a_wrong_checksum_is_not_read(packed: Callable[..., Path]) -> None:
    wheel = packed()
    with zipfile.ZipFile(wheel) as archive:
        info = next(one for one in archive.infolist() if one.filename.endswith("universal.json"))
    data = bytearray(wheel.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + 10] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(WheelError, match="can't be read"):
        read_universal(wheel)


# --- SBOM


@pytest.mark.parametrize("library", [True, False])
def test_the_cuda_runtime_is_in_it_where_a_library_has_it(
    tmp_path: Path, plan_for: Callable[..., BuildPlan], *, library: bool
) -> None:
    modules = universal_of(ALL).modules if library else universal_of(ALL).modules[1:]
    source = upstream(tmp_path)
    if not library:
        members = {path: member for path, member in read_members(source).items() if "2_cuda." not in path}
        write_wheel(source, members, "flash_attn-2.8.3.dist-info")
    universal = Universal(pairs=ALL, modules=modules)
    wheel = package_universal(source, tmp_path, plan_for(), universal, built_for(ALL), "attnforge 1", CUTLASS)
    sbom = json.loads(information(wheel)["sboms/attnforge.cdx.json"])
    runtime = {"NVIDIA CUDA runtime"} if library else set()
    assert {one["name"] for one in sbom["components"]} == {"flash-attn", "cutlass"} | runtime
