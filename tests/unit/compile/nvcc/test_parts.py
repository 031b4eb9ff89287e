"""What cicc writes in parts is put together to what it would have written at once, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.nvcc.dryrun import UnknownStepsError
from attnforge.compile.nvcc.parts import NotWholeError, in_parts, joined
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.ptx import read_ptx
from attnforge.compile.nvcc.steps import Step, Tool, dissect, folders
from attnforge.model.graph import InParts, Language, Unit
from attnforge.model.parts import features_of, is_part, part_labels
from standins.dryruns import ONE, THREE
from standins.ptx_texts import ptx

FUNCTIONS = [("first", 3), ("second", 4), ("third", 5), ("fourth", 6)]
PARTS = InParts("/g/index.h", ("/g/on.h", "/g/off.h"))

# --- what is put together


def join(index: Sequence[tuple[str, int]], *parts: Sequence[tuple[str, int]]) -> bytes:
    """Join parts; a function stands for its body by a number, and has none in the index."""
    return joined(*(read_ptx(ptx("90", part)) for part in ([(name, 0) for name, _ in index], *parts)))


@given(st.permutations(FUNCTIONS), st.lists(st.integers(0, 1), min_size=4, max_size=4), st.data())
def test_parts_make_what_one_run_writes(order: list[tuple[str, int]], sides: list[int], data: st.DataObject) -> None:
    sides[:2] = [0, 1]
    parts = [[one for one, at in zip(order, sides, strict=True) if at == side] for side in (0, 1)]
    shuffled = [data.draw(st.permutations(part)) for part in parts]
    assert join(order, *shuffled) == ptx("90", order)


def test_a_function_that_is_in_several_parts_is_there_once() -> None:
    assert join(FUNCTIONS, FUNCTIONS[:3], FUNCTIONS[2:]) == ptx("90", FUNCTIONS)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([FUNCTIONS[:2], FUNCTIONS[3:]], "third"),
        ([FUNCTIONS[:2], [*FUNCTIONS[2:], ("fifth", 7)]], "fifth"),
        ([FUNCTIONS[:3], [("third", 9), FUNCTIONS[3]]], "third is not the same in two parts"),
    ],
    ids=["one is missing", "one is not in the index", "two are different"],
)
def test_what_is_not_whole_is_refused(parts: list[list[tuple[str, int]]], why: str) -> None:
    with pytest.raises(NotWholeError, match=why):
        join(FUNCTIONS, *parts)


def test_parts_that_declare_different_things_are_refused() -> None:
    index = read_ptx(ptx("90", FUNCTIONS))
    one, other = (read_ptx(ptx("90", part)) for part in (FUNCTIONS[:2], FUNCTIONS[2:]))
    more = replace(other, head=other.head + b".global .align 4 .b8 table[4];\n")
    assert joined(index, one, other)
    with pytest.raises(NotWholeError, match="declare"):
        joined(index, one, more)


# --- the steps


def with_cuda_header(text: str) -> str:
    """Have the preprocessor of device code include CUDA's header first, as nvcc does."""
    return text.replace(" -E -x c++ -O3 -m64 ", ' -E -x c++ -O3 -include "cuda_runtime.h" -m64 -include /g/own.h ')


def unit(**changes: object) -> Unit:
    made = Unit("/o/tiny.o", ("/p/src/tiny.cu",), ("nvcc",), "/p", Language.CUDA, module_id="id", parts=PARTS)
    return replace(made, **changes)  # type: ignore[arg-type]


def steps(text: str, one: Unit) -> dict[str, Step]:
    found = dissect(with_cuda_header(text), "/w", "/w/id", "/o/tiny.o", Prefixes({"/p/src": "source"}))[1]
    return {step.label: step for step in in_parts(found, one)}


def test_each_part_is_preprocessed_with_its_header_behind_cudas_own() -> None:
    found = steps(ONE, unit())
    for label, header in zip(part_labels("preprocess sm_90a", 2), (PARTS.index, *PARTS.headers), strict=True):
        argv = found[label].argv
        at = argv.index("cuda_runtime.h")
        assert argv[at + 1 : at + 3] == ("-include", header)
        assert argv.index(header) < argv.index("/g/own.h")
        assert "-MD" not in argv
        assert found[label].depfile == ""
    assert not any(header in found["preprocess sm_90a"].argv for header in PARTS.headers)


def test_parts_have_folders_of_their_own_and_the_same_names() -> None:
    found = steps(ONE, unit())
    whole = found["cicc sm_90a"]
    for label in part_labels("cicc sm_90a", 2):
        step = found[label]
        assert step.cwd != whole.cwd
        assert step.cwd in folders([step])
        assert step.reads == found[label.replace("cicc", "preprocess")].writes
        assert step.needs == (label.replace("cicc", "preprocess"),)
        assert [path.rpartition("/")[2] for path in step.writes] == [path.rpartition("/")[2] for path in whole.writes]
        differing = {pair for pair in zip(step.argv, whole.argv, strict=True) if len(set(pair)) > 1}
        assert differing <= {("/w/id", "id")}
    written = [path for step in found.values() for path in step.writes]
    assert len(written) == len(set(written))


def test_the_whole_waits_for_its_parts_and_what_follows_for_the_whole() -> None:
    found = steps(ONE, unit())
    assert set(found["cicc sm_90a"].needs) == {"preprocess sm_90a", *part_labels("cicc sm_90a", 2)}
    assert found["ptxas sm_90a"].needs == ("cicc sm_90a",)


def test_code_from_another_architectures_ptx_has_no_parts() -> None:
    found = steps(THREE, unit(shares=(("sm_90a", "sm_80"),)))
    assert {label.split(" ")[1] for label in found if is_part(label)} == {"sm_80", "sm_90"}


def test_without_parts_steps_stay_as_they_are() -> None:
    assert not any(map(is_part, steps(ONE, unit(parts=None))))


def test_a_preprocessor_that_includes_no_header_of_cuda_is_not_known() -> None:
    found = dissect(ONE, "/w", "/w/id", "/o/tiny.o")[1]
    assert any(step.tool is Tool.CICC for step in found)
    with pytest.raises(UnknownStepsError, match=r"cuda_runtime\.h"):
        in_parts(found, unit())


# --- names


def test_the_name_of_a_part_tells_its_features() -> None:
    assert features_of("no-dropout+softcap") == {"dropout": False, "softcap": True}


def test_labels_of_parts_are_known_and_no_others() -> None:
    assert part_labels("cicc sm_90", 2) == ("cicc sm_90 index", "cicc sm_90 part 1 of 2", "cicc sm_90 part 2 of 2")
    assert all(map(is_part, part_labels("preprocess sm_90a", 3)))
    assert not any(map(is_part, ("cicc sm_90", "ptxas sm_90 #2", "compile", "")))
