from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.nvcc.ptx import UnknownPtxError, derived, is_reordered, parts, read_ptx
from standins.ptx_texts import mark, ptx

FUNCTIONS = st.lists(
    st.tuples(st.from_regex(r"_Z[0-9]{1,2}[a-z_$]{1,9}", fullmatch=True), st.integers(1, 99)),
    min_size=1,
    max_size=6,
    unique_by=lambda function: function[0],
)


@given(functions=FUNCTIONS, data=st.data())
def test_what_is_derived_is_what_cicc_writes_for_the_later_architecture(
    functions: list[tuple[str, int]], data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(functions), min_size=1, unique=True).map(sorted))
    kept = [function for function in functions if function in kept]
    names = {name for name, _ in kept}
    made = derived(read_ptx(ptx("80", functions)), "90", lambda name: name not in names)
    assert made == ptx("90", kept)


@given(functions=FUNCTIONS)
def test_nothing_is_changed_for_the_same_architecture(functions: list[tuple[str, int]]) -> None:
    text = ptx("90", functions)
    module = read_ptx(text)
    assert module.target == "90"
    assert derived(module, "90") == text


def test_a_function_is_the_same_part_in_whichever_unit_and_place_it_is() -> None:
    alone = parts(read_ptx(ptx("80", [("b", 7)], "_11_4_x_cu_22_0")), "_11_4_x_cu_22_0")
    merged = parts(read_ptx(ptx("90", [("a", 3), ("b", 7)], "_3_12_longer_cu_4_0")), "_3_12_longer_cu_4_0")
    assert alone.keys() < merged.keys()
    assert [merged[digest] for digest in merged.keys() - alone.keys()] == ["a"]


@pytest.mark.parametrize(
    "change", [(b"%r<7>", b"%r<8>"), (b"V13.0.88", b"V13.0.89"), (b".version 9.0", b".version 9.1")]
)
def test_another_body_compiler_or_version_is_another_part(change: tuple[bytes, bytes]) -> None:
    text = ptx("80", [("b", 7)])
    assert parts(read_ptx(text), "").keys() - parts(read_ptx(text.replace(*change)), "").keys()


def test_what_is_left_out_is_no_part() -> None:
    found = parts(read_ptx(ptx("80", [("a", 3), ("b", 7)])), "", lambda name: name == "a")
    assert "a" not in found.values()
    assert "b" in found.values()


def test_a_prototype_is_a_declaration() -> None:
    text = ptx("80", [("a", 3)]).replace(
        b".extern .shared", b".extern .func  vprintf\n(\n\t.param .b64 x\n)\n;\n.extern .shared"
    )
    module = read_ptx(text)
    assert [function.name for function in module.functions] == ["a"]
    assert derived(module, "90") == text.replace(b"sm_80", b"sm_90")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b".version 9.0\n.target sm_80\n",
        ptx("80", [("a", 3)]).rstrip()[:-1],
        ptx("80", [("a", 3)]) + b".global .b8 late[1];\n",
        ptx("80", [("a", 3), ("b", 4)]).replace(mark("b").encode(), mark("c").encode()),
        ptx("80", [("a", 3), ("b", 4)]).replace(mark("b").encode(), b".global .b8 between[1];\n"),
    ],
    ids=["empty", "no function", "cut off", "more at the end", "another name", "more between"],
)
def test_other_forms_are_refused(text: bytes) -> None:
    with pytest.raises(UnknownPtxError):
        read_ptx(text)


def test_a_unit_without_functions_is_not_derived() -> None:
    with pytest.raises(UnknownPtxError):
        derived(read_ptx(ptx("80", [("a", 3)])), "90", lambda name: True)


@given(functions=FUNCTIONS, data=st.data())
def test_another_order_is_told_from_another_function(functions: list[tuple[str, int]], data: st.DataObject) -> None:
    one = read_ptx(ptx("80", [("left$out", 5), *functions]))
    shuffled = data.draw(st.permutations(functions))

    def is_left_out(name: str) -> bool:
        return name == "left$out"

    assert is_reordered(one, read_ptx(ptx("90", shuffled)), "_0a_4_x_cu_0b_0", is_left_out)
    for other in ([*shuffled, ("more", 3)], [(name, registers + 1) for name, registers in shuffled], shuffled[1:]):
        if other:
            assert not is_reordered(one, read_ptx(ptx("90", other)), "_0a_4_x_cu_0b_0", is_left_out)
