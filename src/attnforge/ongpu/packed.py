"""Cases of calls on packed sequences (varlen), also with k and v in the pages of a cache."""

from __future__ import annotations

from typing import Any

import torch

from .trying import Tensors, Trying

PAGE = 256
"""Rows of a page: FlashAttention 2 takes multiples of 256 (flash_api.cpp)."""


def varlen(one: Trying) -> None:
    """Compare each sequence with the reference."""
    tensors, starts, longest = _packed(one)
    options, call = one.options(), one.package.varlen
    assert call is not None
    arguments, own = _in_pages(one, tensors, starts[1])
    out = one.twice(lambda *copies: call(*copies, *starts, *longest, **options, **own), arguments)
    q, k, v = tensors
    for sequence in range(len(one.case["lengths"])):
        rows, keys = (slice(int(each[sequence]), int(each[sequence + 1])) for each in starts)
        if rows.stop > rows.start:
            one.compare(out[None, rows], (q[None, rows], k[None, keys], v[None, keys]), options)


def call_only(one: Trying) -> None:
    """Make the call."""
    tensors, starts, longest = _packed(one)
    assert one.package.varlen is not None
    arguments, own = _in_pages(one, tensors, starts[1])
    one.package.varlen(*arguments, *starts, *longest, **one.options(), **own)


def _packed(one: Trying) -> tuple[Tensors, tuple[torch.Tensor, torch.Tensor], tuple[int, int]]:
    """Return packed q, k and v of all sequences, where each starts, and the longest of q and of k."""
    case = one.case
    rows, columns = [pair[0] for pair in case["lengths"]], [pair[1] for pair in case["lengths"]]
    q = one.draw(sum(rows), case["heads"], case["head_dim"])
    k, v = (one.draw(sum(columns), case["kv_heads"], case["head_dim"]) for _ in range(2))
    starts = [one.integers([0, *torch.tensor(lengths).cumsum(0).tolist()]) for lengths in (rows, columns)]
    return (q, k, v), (starts[0], starts[1]), (max(rows), max(columns))


def _in_pages(one: Trying, tensors: Tensors, starts: torch.Tensor) -> tuple[Tensors, dict[str, Any]]:
    """Return the arguments of the call: unchanged, or k and v in pages of a cache, with their table."""
    if one.case["mode"] != "paged":
        return tensors, {}
    q, k, v = tensors
    places = starts.tolist()
    most = max(-(-(end - start) // PAGE) for start, end in zip(places, places[1:]))
    table = torch.randperm(most * (len(places) - 1), device=one.device).view(-1, most)
    return (q, _paged(k, places, table), _paged(v, places, table)), {"table": table.to(torch.int32)}


def _paged(tensor: torch.Tensor, places: list[int], table: torch.Tensor) -> torch.Tensor:
    """Return sequences of (total, heads, head_dim) in pages; what no sequence fills is NaN."""
    held = torch.full((table.numel(), PAGE, *tensor.shape[1:]), float("nan"), device=tensor.device)
    for sequence, (start, end) in enumerate(zip(places, places[1:])):
        for at in range(start, end):
            held[table[sequence, (at - start) // PAGE], (at - start) % PAGE] = tensor[at]
    return held.to(tensor.dtype)
