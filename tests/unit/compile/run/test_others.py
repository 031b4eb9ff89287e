"""What others hold of a build's budget."""

from __future__ import annotations

import pytest

from attnforge.compile.run.others import Others

GB = 10**9


@pytest.mark.parametrize(
    ("free", "used", "taken"),
    [(10, 0, 0), (20, 0, 0), (2, 8, 0), (2, 4, 4), (0, 4, 6), (-1, 0, 11)],
    ids=["all of it", "more", "ours", "a neighbour's", "all but ours", "less than nothing"],
)
def test_what_is_neither_free_nor_held_by_compilers_is_taken(free: int, used: int, taken: int) -> None:
    others = Others(10 * GB, lambda: free * GB, own=lambda: 5)
    assert others.taken(used * GB) == taken * GB


def test_what_attnforge_takes_since_counts() -> None:
    own = [5 * GB, 6 * GB, 4 * GB]
    others = Others(10 * GB, own=lambda: own.pop(0))
    assert [others.taken(0), others.taken(0)] == [GB, 0]


def test_it_is_said_once_and_only_where_it_matters() -> None:
    free, said = [9.5, 6.0, 3.0, 10.0], list[str]()
    others = Others(10 * GB, lambda: int(free.pop(0) * GB), said.append, own=lambda: 5)
    assert [others.taken(0) for _ in range(4)] == [GB // 2, 4 * GB, 7 * GB, 0]
    (text,) = said
    assert "compilers get 6.0 GB of 10.0 GB now" in text
