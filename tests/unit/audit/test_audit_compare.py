from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from audit_writers import (
    FUNC,
    LIBRARY,
    Part,
    Strings,
    Sym,
    assemble,
    container,
    entry,
    library,
    pair_path,
    write_wheel,
)
from hypothesis import given
from hypothesis import strategies as st

from attnforge.audit.compare import compare_wheels
from attnforge.audit.machinecode import Shape, plain_name, read_functions
from attnforge.cli.main import main
from attnforge.errors import RequestError, WheelError
from attnforge.model.comparison import Comparison

MODULE = "demo_cuda.cpython-311-x86_64-linux-gnu.so"
KERNEL = "_Z4demoPf"
READS_BANK_4 = struct.pack("<QQ", 0x0100020000067B82, 0x000EA20000000A00)  # LDC.64 R6, c[0x4][0x8], from ptxas 13.0
PLAIN = bytes(range(16))


@dataclass(frozen=True)
class Fn:
    """A function as a cubin describes it; ``calls`` and ``addresses`` are relocations of its code and of bank 4."""

    name: str = KERNEL
    code: bytes = PLAIN
    registers: int = 32
    shared: int = 256
    constant: bytes = bytes(24)
    frame: int = 0
    stack: int = 0
    launch: bytes = b""
    calls: str = ""


def cubin_of(*functions: Fn, number: int = 90, addresses: tuple[str, ...] = (), text: bytes = b"") -> bytes:
    """A cubin of CUDA 13 as ptxas lays it out: sections for each function, .nv.info, and addresses in bank 4."""
    strings, rows, info = Strings(), [bytes(24)], b""
    parts: list[Part] = []
    names = {fn.name: index for index, fn in enumerate(functions, start=1)}
    others = sorted({*addresses, *(fn.calls for fn in functions if fn.calls)} - names.keys())
    numbers = {**names, **{name: index for index, name in enumerate(others, start=1 + len(functions))}}
    for index, fn in enumerate(functions, start=1):
        parts.append(Part(f".text.{fn.name}", 1, fn.code, info=index))
        rows.append(struct.pack("<IBBHQQ", strings.add(fn.name), FUNC, 0x10, len(parts), 0, len(fn.code)))
        parts.append(Part(f".nv.shared.{fn.name}", 8, bytes(fn.shared)))
        parts.append(Part(f".nv.constant0.{fn.name}", 1, fn.constant))
        parts.append(Part(f".nv.info.{fn.name}", 0x70000000, fn.launch))
        if fn.calls:
            rela = struct.pack("<QQq", 0, numbers[fn.calls] << 32 | 0x4B, 0)
            parts.append(Part(f".rela.text.{fn.name}", 4, rela, ".symtab", 24))
        for attribute, value in ((0x2F, fn.registers), (0x11, fn.frame), (0x12, fn.stack)):
            info += struct.pack("<BBHII", 4, attribute, 8, index, value)
    if text:
        parts.append(Part(".nv.global.init", 1, text))
    inside, size = (len(parts), len(text)) if text else (0, 0)
    # A symbol without a name is that of a section, and has no size.
    rows += [struct.pack("<IBBHQQ", strings.add(n), 1 if n else 3, 0, inside, 0, size if n else 0) for n in others]
    relocations = [struct.pack("<QQq", 8 * at, numbers[name] << 32 | 2, 0) for at, name in enumerate(addresses)]
    if addresses:
        parts.append(Part(".nv.constant4", 1, bytes(8 * len(addresses))))
        parts.append(Part(".rela.nv.constant4", 4, b"".join(relocations), ".symtab", 24))
    parts += [Part(".nv.info", 0x70000000, info), Part(".symtab", 2, b"".join(rows), ".strtab", 24, info=1)]
    parts.append(Part(".strtab", 3, bytes(strings.data)))
    return assemble(parts, machine=190, flags=number << 8, abi_version=8, kind=2)


def code_of(*cubins: bytes, number: int = 90) -> bytes:
    return library(fatbin=container(*(entry(2, number, cubin, packed="zstd") for cubin in cubins)))


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Comparison]:
    """Compare two modules, or two sets of files."""

    def run(a: bytes | Mapping[str, bytes], b: bytes | Mapping[str, bytes]) -> Comparison:
        paths = [
            write_wheel(tmp_path / side, {MODULE: files} if isinstance(files, bytes) else files)
            for side, files in (("a", a), ("b", b))
        ]
        return compare_wheels(*paths)

    return run


def shapes(image: bytes, number: int = 90) -> dict[str, Shape]:
    return {function.symbol: function.shape for function in read_functions(image, number)}


# --- what a function is


def test_resources_are_read() -> None:
    shape = shapes(cubin_of(Fn(registers=168, shared=1280, constant=bytes(536), frame=144, stack=160)))[KERNEL]
    assert (shape.registers, shape.shared, shape.constant, shape.frame, shape.stack) == (168, 1280, 536, 144, 160)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (Fn(code=PLAIN[:-1] + b"\xff"), "code"),
        (Fn(calls="_Z5otherv"), "code"),
        (Fn(registers=40), "registers"),
        (Fn(shared=512), "shared"),
        (Fn(frame=8), "frame"),
        (Fn(stack=8), "stack"),
        (Fn(constant=b"\1" + bytes(23)), "constants"),
        (Fn(launch=struct.pack("<BBHIII", 4, 0x05, 12, 128, 1, 1)), "attributes"),
        (Fn(launch=struct.pack("<BBHBBH", 2, 0x4C, 1, 3, 0x1B, 255)), "attributes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_part_of_a_function_counts_alone(changed: Fn, field: str, compare: Callable[..., Comparison]) -> None:
    report = compare(code_of(cubin_of(Fn())), code_of(cubin_of(changed)))
    (module,) = report.modules
    (difference,) = module.different
    told = {name: getattr(difference, name) for name in ("code", "constants", "attributes")}
    pairs = {name: getattr(difference, name) for name in ("registers", "shared", "constant", "frame", "stack")}
    differing = {name for name, value in told.items() if value == "different"}
    differing |= {name for name, (a, b) in pairs.items() if a != b}
    assert differing == {field}
    assert (module.same, module.only_a, module.only_b) == (0, (), ())
    assert (report.verdict, report.exit_code) == ("different", 5)


@pytest.mark.parametrize("attribute", [0x0F, 0x37], ids=["externs", "toolkit"])
def test_records_that_say_nothing_of_the_function_do_not_count(attribute: int) -> None:
    one, other = (struct.pack("<BBHI", 4, attribute, 4, value) for value in (5, 6))
    assert shapes(cubin_of(Fn(launch=one))) == shapes(cubin_of(Fn(launch=other)))


def test_the_number_of_the_parameters_symbol_does_not_count_but_their_place_does() -> None:
    def launch(symbol: int, place: int) -> Fn:
        return Fn(launch=struct.pack("<BBHII", 4, 0x0A, 8, symbol, place))

    assert shapes(cubin_of(launch(5, 0x80210))) == shapes(cubin_of(launch(9, 0x80210)))
    assert shapes(cubin_of(launch(5, 0x80210))) != shapes(cubin_of(launch(5, 0x80160)))


def test_calls_go_by_the_name_of_what_is_called_and_not_by_its_number() -> None:
    caller = Fn(calls="_Z5otherv")
    more = cubin_of(Fn("_Z5firstv"), caller)
    assert shapes(cubin_of(caller))[KERNEL] == shapes(more)[KERNEL]


def test_shared_addresses_count_for_code_that_reads_their_bank_alone() -> None:
    reads, plain = Fn(code=READS_BANK_4), Fn("_Z5plainv")
    one = shapes(cubin_of(reads, plain, addresses=("x", "y")))
    other = shapes(cubin_of(reads, plain, addresses=("y", "x")))
    assert one["_Z5plainv"] == other["_Z5plainv"]
    assert one[KERNEL] == replace(other[KERNEL], constants=one[KERNEL].constants)
    assert one[KERNEL].constants != other[KERNEL].constants


def test_instructions_of_an_older_gpu_are_taken_to_read_every_bank() -> None:
    images = [cubin_of(Fn(), number=61, addresses=names) for names in (("x", "y"), ("y", "x"))]
    assert shapes(images[0], 61) != shapes(images[1], 61)


def test_strings_go_by_their_bytes_and_not_by_their_number() -> None:
    def printing(name: str, text: bytes) -> dict[str, Shape]:
        return shapes(cubin_of(Fn(code=READS_BANK_4), addresses=(name, name), text=text))

    # In bank 4 itself no string has a place, so that only what its slots point to differs.
    assert printing("$str", b"hello\0") == printing("$str$3", b"hello\0")
    assert printing("$str", b"hello\0") != printing("$str", b"world\0")


def test_addresses_inside_of_a_section_go_by_all_of_its_bytes() -> None:
    def reading(text: bytes) -> dict[str, Shape]:
        return shapes(cubin_of(Fn(code=READS_BANK_4), addresses=("", ""), text=text))

    assert reading(b"hello") == reading(b"hello")
    assert reading(b"hello") != reading(b"jello")


# --- names


@pytest.mark.parametrize(
    ("symbol", "plain"),
    [
        (KERNEL, KERNEL),
        ("_ZN36_GLOBAL__N__efc15a0d_4_k_cu_2f1254c86hiddenEPf", "_ZN_GLOBAL__N_6hiddenEPf"),
        ("_ZN42_GLOBAL__N__efc15a0d_4_k_cu_2f1254c8_123456hiddenEPf", "_ZN_GLOBAL__N_6hiddenEPf"),
        ("$_Z3pubPfi$_ZN34_INTERNAL_efc15a0d_4_k_cu_2f1254c87shelperEf", "$_Z3pubPfi$_ZN_INTERNAL_7shelperEf"),
        ("_ZN3ns234_INTERNAL_efc15a0d_4_k_cu_2f1254c81fEv", "_ZN3ns2_INTERNAL_1fEv"),
        ("__nv_static_25__efc15a0d_4_k_cu_2f1254c8__Z4statPf", "__nv_static__Z4statPf"),
        (
            "__nv_static_25__efc15a0d_4_k_cu_2f1254c8__ZN36_GLOBAL__N__efc15a0d_4_k_cu_2f1254c86hiddenEPf",
            "__nv_static__ZN_GLOBAL__N_6hiddenEPf",
        ),
        ("$_Z1kv$__internal_7_$__cuda_sm20_div_rn_f64_full", "$_Z1kv$$__cuda_sm20_div_rn_f64_full"),
        ("_ZN12_GLOBAL__N_16hiddenEPf", "_ZN12_GLOBAL__N_16hiddenEPf"),
        ("_Z1k99999_INTERNAL_", "_Z1k99999_INTERNAL_"),
    ],
)
def test_the_module_id_is_set_aside(symbol: str, plain: str) -> None:
    assert plain_name(symbol) == plain


IDS = st.tuples(
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9_]{0,30}_cu", fullmatch=True),
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    st.sampled_from(["", "_1", "_34567"]),
)


def internal(name: str, ids: tuple[str, str, str, str]) -> str:
    first, file, second, process = ids
    own = f"_INTERNAL_{first}_{len(file)}_{file}_{second}{process}"
    return f"_ZN{len(own)}{own}{len(name)}{name}EPf"


@given(st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), IDS, IDS)
def test_names_of_one_function_in_two_units_are_the_same(
    name: str, one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    assert plain_name(internal(name, one)) == plain_name(internal(name, other))
    assert plain_name(internal(name, one)) != plain_name(internal(f"{name}x", one))


@given(st.text(max_size=80) | st.from_regex(r"(\d{0,5}_(INTERNAL|GLOBAL__N)_|__nv_static_\d{0,5}_|\w)*"))
def test_any_name_is_taken(symbol: str) -> None:
    plain_name(symbol)


# --- wheels


FUNCTIONS = st.builds(
    Fn,
    name=st.sampled_from(["_Z1aPf", "_Z1bPf", internal("c", ("0" * 8, "k_cu", "1" * 8, ""))]),
    code=st.binary(min_size=1, max_size=64),
    registers=st.integers(0, 255),
    shared=st.integers(0, 4096),
    constant=st.binary(max_size=32),
    frame=st.integers(0, 1024),
    launch=st.binary(max_size=24),
)
CUBINS = st.lists(FUNCTIONS, min_size=1, max_size=3, unique_by=lambda fn: fn.name)


@given(st.lists(st.tuples(CUBINS, st.sampled_from([80, 90, 120])), min_size=1, max_size=4))
def test_a_wheel_is_the_same_as_itself_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, cubins: list[tuple[list[Fn], int]]
) -> None:
    entries = [entry(2, number, cubin_of(*functions, number=number)) for functions, number in cubins]
    folder = tmp_path_factory.mktemp("itself")
    a = write_wheel(folder / "a", {MODULE: library(fatbin=container(*entries))})
    b = write_wheel(folder / "b", {MODULE: library(fatbin=container(*reversed(entries)))})
    for one, other in ((a, a), (a, b)):
        report = compare_wheels(one, other)
        assert (report.verdict, report.exit_code, report.uncompared) == ("same", 0, ())
        assert all(module.same for module in report.modules)


def test_wheels_for_two_pythons_are_matched_by_the_names_of_their_modules(compare: Callable[..., Comparison]) -> None:
    code = code_of(cubin_of(Fn()))
    other = MODULE.replace("311", "312")
    report = compare({MODULE: code}, {f"demo-1.0.data/platlib/{other}": code})
    assert report.verdict == "same"
    assert [(module.path, module.architecture, module.same) for module in report.modules] == [("demo_cuda", "sm_90", 1)]


def test_a_universal_wheel_is_held_against_a_plain_one(compare: Callable[..., Comparison]) -> None:
    shared, own = cubin_of(Fn()), cubin_of(Fn("_Z3ownv"))
    plain = {MODULE: code_of(shared, own)}
    modules = {pair_path(torch, "3.12"): code_of(own) for torch in ("2.11", "2.12")}
    universal = {f"demo_cuda/{LIBRARY}": code_of(shared), **modules}
    for one, other in ((plain, universal), (universal, plain)):
        report = compare(one, other)
        told = [(module.path, module.architecture, module.same) for module in report.modules]
        assert (report.verdict, told) == ("same", [("demo_cuda", "sm_90", 2)])


def test_a_kernel_that_differs_in_a_universal_wheel(compare: Callable[..., Comparison]) -> None:
    changed = code_of(cubin_of(Fn(registers=40)))
    thin = {pair_path(): library([Sym("PyInit_demo_cuda", defined=True)])}
    report = compare({MODULE: code_of(cubin_of(Fn()))}, {f"demo_cuda/{LIBRARY}": changed, **thin})
    (module,) = report.modules
    assert (report.verdict, [one.registers for one in module.different]) == ("different", [(32, 40)])


def test_a_function_of_one_wheel_alone(compare: Callable[..., Comparison]) -> None:
    report = compare(code_of(cubin_of(Fn(), Fn("_Z5extrav"))), code_of(cubin_of(Fn())))
    (module,) = report.modules
    assert (module.same, len(module.only_a), module.only_b, module.different) == (1, 1, (), ())
    assert "extra" in module.only_a[0]
    assert report.exit_code == 5


def test_module_ids_alone_make_no_difference(compare: Callable[..., Comparison]) -> None:
    names = (internal("f", ("0" * 8, "k_cu", "1" * 8, "")), internal("f", ("2" * 8, "group_7_cu", "3" * 8, "_812")))
    a, b = (code_of(cubin_of(Fn(), Fn(name, calls=KERNEL))) for name in names)
    assert compare(a, b).verdict == "same"


def test_units_that_were_merged_make_no_difference(compare: Callable[..., Comparison]) -> None:
    """A kernel that two units instantiate is there twice, and once where these are one."""
    x, y, both = Fn("_Z1xv"), Fn("_Z1yv", code=bytes(32)), Fn()
    apart = code_of(cubin_of(x, both), cubin_of(y, both))
    assert compare(apart, code_of(cubin_of(both, y, x))).verdict == "same"


def test_functions_of_one_plain_name_are_all_held_against_each_other(compare: Callable[..., Comparison]) -> None:
    one, two = (internal("f", (digit * 8, "k_cu", digit * 8, "")) for digit in "12")
    first, second = Fn(one), Fn(two, code=bytes(32))
    both = code_of(cubin_of(first), cubin_of(second))
    swapped = code_of(cubin_of(replace(first, name=two)), cubin_of(replace(second, name=one)))
    assert compare(both, swapped).verdict == "same"
    report = compare(both, code_of(cubin_of(first)))
    (difference,) = report.modules[0].different
    assert (difference.code, report.exit_code) == ("different", 5)


def test_other_architectures_are_other_places(compare: Callable[..., Comparison]) -> None:
    report = compare(code_of(cubin_of(Fn())), code_of(cubin_of(Fn(), number=80), number=80))
    found = [(module.architecture, len(module.only_a), len(module.only_b)) for module in report.modules]
    assert found == [("sm_80", 0, 1), ("sm_90", 1, 0)]
    assert report.verdict == "different"


PTX = library(fatbin=container(entry(1, 90, b".version 9.0", packed="zstd")))


@pytest.mark.parametrize(("a", "b"), [(PTX, PTX), (PTX, code_of(cubin_of(Fn()))), (library(), library())])
def test_nothing_to_compare_is_not_the_same(a: bytes, b: bytes, compare: Callable[..., Comparison]) -> None:
    report = compare(a, b)
    assert (report.verdict, report.exit_code) == ("unchecked", 6)
    assert "a: no machine code to compare" in report.uncompared


def test_ptx_beside_machine_code_is_said(compare: Callable[..., Comparison]) -> None:
    both = library(fatbin=container(entry(1, 90, b".version 9.0"), entry(2, 90, cubin_of(Fn()))))
    report = compare(both, code_of(cubin_of(Fn())))
    assert report.verdict == "same"
    assert report.uncompared == ("a: demo_cuda: PTX for compute_90 is not compared",)


@pytest.mark.parametrize("garbage", [b"garbage", library(), cubin_of(Fn("_Z5extrav"))[:-32]])
def test_what_cannot_be_read_is_never_the_same(garbage: bytes, compare: Callable[..., Comparison]) -> None:
    good = cubin_of(Fn())
    report = compare(code_of(good, garbage), code_of(good, garbage))
    assert (report.verdict, report.exit_code) == ("unchecked", 6)
    assert report.uncompared[0] == "a: demo_cuda: device code that can't be read (1)"


def test_a_module_that_is_no_elf_file(compare: Callable[..., Comparison]) -> None:
    code = code_of(cubin_of(Fn()))
    files = {MODULE: code, "other.so": b"no ELF"}
    assert compare(files, files).verdict == "unchecked"
    assert compare({**files, "empty.so": b""}, files).verdict == "unchecked"


@given(st.data())
def test_damaged_cubins_are_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(cubin_of(Fn(calls="_Z1xv", launch=bytes(8)), addresses=("x",), text=b"abc\0"))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        list(read_functions(bytes(whole[: data.draw(st.integers(0, len(whole)))]), 90))
    except WheelError:
        return


# --- the command


def call(*arguments: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(["audit", *map(str, arguments)], {"HOME": "/nowhere"}, out, err), out.getvalue(), err.getvalue()


@pytest.fixture
def wheels(tmp_path: Path) -> tuple[Path, Path]:
    a = write_wheel(tmp_path / "a", {MODULE: code_of(cubin_of(Fn(), *(Fn(f"_Z2k{n}v") for n in range(5))))})
    b = write_wheel(tmp_path / "b", {MODULE: code_of(cubin_of(Fn(registers=40, code=bytes(16))))})
    return a, b


def test_the_text_says_what_differs(wheels: tuple[Path, Path]) -> None:
    code, out, _ = call("--compare", *wheels)
    assert code == 5
    assert out.startswith("different: ")
    assert "demo_cuda sm_90: 0 functions the same, 1 different, 5 only in a" in out
    assert "code, registers 32 -> 40" in out
    assert "and 2 more" in out


def test_the_text_says_that_nothing_differs(wheels: tuple[Path, Path]) -> None:
    code, out, _ = call("--compare", wheels[0], wheels[0])
    assert code == 0
    assert out.splitlines()[-1] == "  ok    demo_cuda sm_90: 6 functions the same"


def test_the_json_has_the_keys_that_are_promised(wheels: tuple[Path, Path]) -> None:
    code, out, _ = call("--compare", "--json", *wheels)
    document = json.loads(out)
    assert (code, document["schema"], document["verdict"]) == (5, 1, "different")
    (module,) = document["modules"]
    assert {"path", "architecture", "same", "only_a", "only_b", "different"} == set(module)
    assert module["different"][0]["registers"] == [32, 40]


@pytest.mark.parametrize(("count", "more"), [(1, []), (3, []), (2, ["--torch", "2.11.0"]), (2, ["--python", "py"])])
def test_two_wheels_and_nothing_else(count: int, more: list[str], wheels: tuple[Path, Path]) -> None:
    code, _, err = call("--compare", *more, *[wheels[0]] * count)
    assert code == 2
    assert "--compare" in err


def test_a_file_that_is_not_there(tmp_path: Path, wheels: tuple[Path, Path]) -> None:
    with pytest.raises(RequestError, match="no file"):
        compare_wheels(wheels[0], tmp_path / "gone.whl")
