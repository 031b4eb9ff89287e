"""Which objects go into the kernels library, and what crosses."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from attnforge.link.partition import ObjectFile, init_name, partition, together


def an_object(name: str, *, cuda: bool = True, neutral: bool = True, defines: str = "", wants: str = "") -> ObjectFile:
    have = frozenset(defines.split())
    return ObjectFile(Path(f"/b/{name}.o"), (f"/s/{name}",), cuda, neutral, have, frozenset(wants.split()) - have)


HOST = an_object("api", cuda=False, neutral=False, defines="PyInit_m", wants="run_a run_b malloc c10_empty")


def test_kernels_are_shared_and_what_host_code_calls_of_them_crosses() -> None:
    found = partition([HOST, an_object("b", defines="run_b help", wants="malloc"), an_object("a", defines="run_a")])
    assert [one.path.stem for one in found.shared] == ["a", "b"]
    assert [one.path.stem for one in found.own] == ["api"]
    assert found.crossing == ("run_a", "run_b")


def test_a_kernel_that_read_pytorch_stays_in_the_modules() -> None:
    bound = an_object("bound", neutral=False, defines="run_b")
    found = partition([HOST, an_object("a", defines="run_a"), bound])
    assert [one.path.stem for one in found.own] == ["api", "bound"]
    assert found.crossing == ("run_a",)


def test_what_needs_the_host_code_goes_with_it_and_takes_along_what_it_needs() -> None:
    calls_back = an_object("a", defines="run_a tell", wants="host_log")
    second = an_object("b", defines="run_b", wants="tell")
    host = an_object("api", cuda=False, neutral=False, defines="PyInit_m host_log", wants="run_a run_b run_c")
    found = partition([host, calls_back, second, an_object("c", defines="run_c")])
    assert [one.path.stem for one in found.shared] == ["c"]
    assert found.crossing == ("run_c",)


def test_a_symbol_that_both_sides_have_binds_nothing() -> None:
    """An inline function is in every object that uses it."""
    host = an_object("api", cuda=False, neutral=False, defines="PyInit_m inline", wants="run_a")
    found = partition([host, an_object("a", defines="run_a inline")])
    assert found.crossing == ("run_a",)


def test_neutral_host_code_alone_makes_no_library() -> None:
    found = partition([HOST, an_object("a", cuda=False, defines="run_a"), an_object("b", neutral=False)])
    assert found == together([HOST, an_object("a", cuda=False, defines="run_a"), an_object("b", neutral=False)])
    assert found.shared == () and found.crossing == ()


def test_a_module_without_host_code_is_not_divided() -> None:
    assert partition([an_object("a", defines="PyInit_m run_a")]).shared == ()


def test_the_name_of_a_module_is_that_of_the_function_that_python_calls() -> None:
    assert init_name([an_object("a"), HOST]) == "m"
    assert init_name([an_object("a", defines="run_a")]) == ""


NAMES = st.sampled_from("abcdefgh")
OBJECTS = st.lists(
    st.builds(
        lambda number, cuda, neutral, defines, wants: an_object(
            str(number), cuda=cuda, neutral=neutral, defines=" ".join(defines), wants=" ".join(wants)
        ),
        st.integers(0, 10**6),
        st.booleans(),
        st.booleans(),
        st.sets(NAMES),
        st.sets(NAMES),
    ),
    max_size=7,
    unique_by=lambda one: one.path,
)


@given(OBJECTS)
def test_every_object_is_on_one_side_and_the_library_needs_nothing_of_the_modules(objects: list[ObjectFile]) -> None:
    found = partition(objects)
    assert sorted((*found.shared, *found.own), key=lambda one: one.path) == sorted(objects, key=lambda one: one.path)
    assert all(one.neutral for one in found.shared)
    inside = frozenset[str]().union(*(one.defines for one in found.shared))
    outside = frozenset[str]().union(*(one.defines for one in found.own))
    for one in found.shared:
        assert not one.wants & (outside - inside)
    for one in found.own:
        assert one.wants & (inside - outside) <= set(found.crossing) or not found.shared
