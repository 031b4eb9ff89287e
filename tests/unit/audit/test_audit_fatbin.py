from __future__ import annotations

import struct

import pytest
from audit_writers import container, cubin, entry, library, machine_code
from hypothesis import given, settings
from hypothesis import strategies as st

from attnforge.audit.device import DeviceCode, count_kernels, read_device_code
from attnforge.audit.fatbin import MAGIC, Kind, read_fatbin
from attnforge.elf import Elf
from attnforge.errors import WheelError
from attnforge.model.audit import KernelCount
from attnforge.model.kernels import Kernels

NUMBERS = st.integers(min_value=50, max_value=130)
ENTRIES = st.tuples(
    st.sampled_from([1, 2, 8]),
    NUMBERS,
    st.binary(max_size=300),
    st.sampled_from(["", "a", "f"]),
    st.sampled_from(["", "lz4", "zstd"]),
)


@given(st.lists(st.lists(ENTRIES, max_size=4), max_size=4), st.integers(0, 3))
def test_reads_back_what_was_written(containers: list[list[tuple[int, int, bytes, str, str]]], gap: int) -> None:
    parts = [container(*(entry(k, n, p, suffix=s, packed=c) for k, n, p, s, c in each)) for each in containers]
    fatbin = read_fatbin(bytes(8 * gap).join(parts))
    wanted = [(k, n, s, p) for each in containers for k, n, p, s, _ in each]
    assert fatbin.damaged == 0
    assert [(e.kind, e.number, e.suffix, e.payload()) for e in fatbin.entries] == wanted


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_read_or_passed_over(data: bytes) -> None:
    _survives(struct.pack("<I", MAGIC) + data)


@given(st.data())
@settings(max_examples=200)
def test_damaged_fatbins_are_read_or_passed_over(data: st.DataObject) -> None:
    whole = bytearray(container(entry(2, 90, cubin(90, ["k"]), packed="zstd"), entry(1, 80, b"ptx" * 50, packed="lz4")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    _survives(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def _survives(data: bytes) -> None:
    for image in read_fatbin(data).entries:
        try:
            image.payload()
        except WheelError:
            continue


def test_a_damaged_container_does_not_hide_the_next() -> None:
    broken = bytearray(container(entry(2, 80, b"x" * 64)))
    broken[8:16] = struct.pack("<Q", 1 << 40)
    fatbin = read_fatbin(bytes(broken) + container(entry(1, 90, b"ptx", suffix="a")))
    assert fatbin.damaged == 1
    assert [(e.kind, e.number, e.suffix) for e in fatbin.entries] == [(Kind.PTX, 90, "a")]


def test_reads_no_further_than_the_section() -> None:
    inside, outside = container(entry(1, 80, b"in")), container(entry(1, 90, b"out"))
    assert [e.number for e in read_fatbin(inside + outside, 0, len(inside)).entries] == [80]


@pytest.mark.parametrize("packed", ["lz4", "zstd"])
def test_an_absurd_size_is_refused_and_not_allocated(packed: str) -> None:
    image = bytearray(container(entry(2, 90, b"x" * 100, packed=packed)))
    image[16 + 56 : 16 + 64] = struct.pack("<Q", 1 << 60)
    with pytest.raises(WheelError, match="device code"):
        read_fatbin(bytes(image)).entries[0].payload()


def _code(*images: bytes) -> DeviceCode:
    return read_device_code(Elf.read(library(fatbin=container(*images))))


def _sms(code: DeviceCode) -> list[str]:
    return [architecture.sm for architecture in code.architectures]


def test_tells_90_from_90a_by_the_entry() -> None:
    code = _code(entry(2, 90, cubin(90, ["k"])), entry(2, 90, cubin(90, ["k"]), suffix="a"))
    assert _sms(code) == ["sm_90", "sm_90a"]


@pytest.mark.parametrize("abi", [7, 8])
def test_tells_90a_by_the_cubin_where_the_entry_does_not(abi: int) -> None:
    assert _sms(_code(entry(2, 90, cubin(90, ["k"], abi=abi, a=True)))) == ["sm_90a"]
    assert _sms(_code(entry(2, 90, cubin(90, ["k"], abi=abi)))) == ["sm_90"]


def test_ptx_is_told_apart_from_machine_code() -> None:
    code = _code(entry(1, 120, b".version 9.0", suffix="f", packed="zstd"))
    assert [architecture.digits for architecture in code.ptx] == ["120f"]
    assert code.architectures == ()
    assert code.present


def test_a_cubin_without_functions_is_no_machine_code() -> None:
    assert _sms(_code(entry(2, 80, cubin(80)), entry(2, 90, cubin(90, functions=["helper"])))) == ["sm_90"]


def test_a_cubin_for_another_architecture_than_its_label_says() -> None:
    assert _code(entry(2, 80, cubin(90, ["k"]))).mismatched == ("sm_80 holds code for sm_90",)


def test_what_is_no_cubin_is_damaged() -> None:
    code = _code(entry(2, 80, b"garbage"), entry(2, 80, library()), entry(2, 90, cubin(90, ["k"])))
    assert (code.damaged, _sms(code)) == (2, ["sm_90"])


def test_functions_are_counted_once_for_all_architectures() -> None:
    code = _code(entry(2, 80, cubin(80, ["a", "b"], functions=["f"])), entry(2, 90, cubin(90, ["a"])))
    assert code.kernels == {"a", "b"}
    assert code.functions == {"a", "b", "f"}


def test_objects_that_were_linked_into_the_code_are_no_code() -> None:
    """`nvcc -rdc=true` keeps them in __nv_relfatbin, which no driver loads."""
    relocatable = library(fatbin=machine_code(90)).replace(b".nv_fatbin\0", b".rv_fatbin\0")
    assert read_device_code(Elf.read(relocatable)) == DeviceCode()


def test_a_module_without_device_code() -> None:
    assert read_device_code(Elf.read(library())) == DeviceCode()


RULE = Kernels(
    pattern="(?P<kind>k)(?P<head_dim>h)(?P<dtype>d)",
    kinds={},
    dtypes=("fp16", "bf16"),
    symbol=r"traitsILi(?P<head_dim>\d+).*?(?P<dtype>half_t|bfloat16_t)",
    symbol_dtypes={"half_t": "fp16", "bfloat16_t": "bf16"},
)


def test_kernels_are_counted_by_head_dimension_and_dtype() -> None:
    names = ["traitsILi64E6half_tA", "traitsILi64E6half_tB", "traitsILi128E10bfloat16_t", "unrelated"]
    assert count_kernels(names, RULE) == (
        KernelCount(head_dim=64, dtype="fp16", count=2),
        KernelCount(head_dim=128, dtype="bf16", count=1),
    )


@pytest.mark.parametrize("rule", [None, RULE.model_copy(update={"symbol": ""})])
def test_kernels_are_not_counted_without_a_rule(rule: Kernels | None) -> None:
    assert count_kernels(["traitsILi64E6half_t"], rule) == ()
