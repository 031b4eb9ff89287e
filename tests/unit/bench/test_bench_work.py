"""Grids, and how much work a call is."""

from __future__ import annotations

import math

import pytest
from bench_reports import shape
from hypothesis import given
from hypothesis import strategies as st

from attnforge.bench.work import BACKWARD, GRIDS, cells, flop, grid, moved_bytes
from attnforge.knowledge.shapes import shapes
from attnforge.model.benchmark import Shape

SHAPES = st.builds(
    lambda b, h, s, d, causal: shape(
        batch=b, heads=h, kv_heads=h, rows=s, columns=s, head_dim=d, causal=causal, kind="prefill"
    ),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(1, 2**17),
    st.sampled_from([32, 64, 128, 256]),
    st.booleans(),
)


def test_the_formula_at_a_size_that_can_be_counted_by_hand() -> None:
    one = shape(batch=2, heads=3, kv_heads=1, rows=5, columns=7, head_dim=11)
    products = sum(2 * 11 * 2 for _ in range(2 * 3 * 5 * 7))  # each score: one dot product, one sum into the output
    assert flop(one) == products
    assert flop(one.model_copy(update={"causal": True})) == products / 2
    assert flop(one, backward=True) == 2.5 * products
    q, k = 2 * 5 * 3 * 11 * 2, 2 * 7 * 1 * 11 * 2
    assert moved_bytes(one) == q + k + k + q
    assert moved_bytes(one, backward=True) == (q + k + k + q + q) + (q + k + k)


@given(SHAPES)
def test_work_grows_as_it_should(one: Shape) -> None:
    longer = one.model_copy(update={"rows": 2 * one.rows, "columns": 2 * one.columns})
    assert flop(longer) == 4 * flop(one)
    assert moved_bytes(longer) == 2 * moved_bytes(one)
    assert flop(one, backward=True) == BACKWARD * flop(one)
    assert flop(one.model_copy(update={"causal": True})) <= flop(one.model_copy(update={"causal": False}))


@pytest.mark.parametrize("name", GRIDS)
def test_each_grid_has_its_cells_once(name: str) -> None:
    names = [cell.name for cell in grid(name)]
    assert names
    assert len(names) == len(set(names))
    assert set(names) <= {cell.name for cell in grid("full")}
    if name not in ("quick", "full"):
        assert {cell.shape.kind for cell in grid(name)} == {name}


def test_quick_has_some_of_each_kind_and_training_goes_both_ways() -> None:
    kinds = {cell.shape.kind for cell in grid("quick")}
    assert kinds == {"prefill", "decode", "diffusion", "training"}
    ways = [cell.backward for cell in grid("training")]
    assert ways == [False, True] * (len(ways) // 2)
    assert not any(cell.backward for cell in grid("full") if cell.shape.kind != "training")


def test_an_unknown_grid_is_an_error() -> None:
    with pytest.raises(KeyError):
        grid("quick,quickest")


def test_grids_and_shapes_by_name_go_together_and_count_once() -> None:
    names = [cell.name for cell in grid("decode, video-17k-64,decode-1x32k-128,training-8k-128")]
    assert names[:4] == [cell.name for cell in grid("decode")]
    assert names[4:] == ["video-17k-64", "training-8k-128-forward", "training-8k-128-backward"]


@pytest.mark.parametrize("one", shapes(), ids=lambda one: one.name)
def test_each_shape_says_what_it_is_of_and_can_be_run(one: Shape) -> None:
    assert one.of
    assert one.link.startswith("https://")
    assert one.heads % one.kv_heads == 0
    # Masks are aligned at the start by some and at the end by others: a causal shape must not depend on it.
    assert not one.causal or one.rows == one.columns
    assert (one.rows == 1) == (one.kind == "decode")


def test_video_is_as_long_as_issue_and_page_say() -> None:
    lengths = sorted(cell.shape.rows for cell in grid("diffusion"))
    assert (lengths[0], lengths[-1]) == (17_776, 119_056)
    # Frames, rows and columns of patches, and text.
    assert 13 * 30 * 45 + 226 == 17_776
    assert 33 * 45 * 80 + 256 == 119_056


def test_cells_keep_the_sizes_of_their_shape() -> None:
    (cell,) = cells([shape(rows=8, columns=8)])
    assert math.isclose(cell.flop, 4 * 24 * 8 * 8 * 128)
    assert cell.results == ()
    assert cell.fastest is None
