"""Cases of calls with a cache of k and v: partly filled, split, paged, indexed, appended to."""

from __future__ import annotations

from typing import Any

import torch

from . import calls
from .memory import copy
from .packed import PAGE
from .trying import Tensors, Trying

Cache = tuple[torch.Tensor, torch.Tensor]


def cache(one: Trying) -> None:
    """Compare calls with a cache of two sequences: a part of the first is used, and almost all of the second."""
    case, mode = one.case, one.case["mode"]
    q, k, v = one.inputs()
    used = [case["columns"] * 3 // 5, case["columns"] - case["rows"]]
    own: dict[str, Any] = {"lengths": one.integers(used)}
    expected = (k, v)
    if mode == "splits":
        own["splits"] = 5
    if mode == "index":
        own["index"] = one.integers([1, 0])
        k, v = k.flip(0).contiguous(), v.flip(0).contiguous()
    if mode == "paged":
        own["table"], (k, v) = _paged(one, (k, v))
    if mode == "append":
        new = [one.draw(2, case["rows"], case["kv_heads"], case["head_dim"]) for _ in range(2)]
        own.update(new_k=new[0], new_v=new[1])
        expected = _appended(expected, new, used)
        used = [length + case["rows"] for length in used]
    options, call = one.options(), one.package.cached
    assert call is not None
    out = one.twice(lambda *copies: call(*copies, **options, **own), (q, k, v))
    if mode == "append":
        _compare_cache(one, call, (q, k, v), expected, {**options, **own})
    one.found.pop("changed_inputs")  # appending does, and was checked
    for at, length in enumerate(used):
        row = slice(at, at + 1)
        one.compare(out[row], (q[row], *(x[row, :length] for x in expected)), options)


def _paged(one: Trying, tensors: Cache) -> tuple[torch.Tensor, Cache]:
    """Return the table of pages, (2, pages) in int32, and k and v in pages of a random order."""
    pages = one.case["columns"] // PAGE
    order = torch.randperm(2 * pages, device=one.device)
    k, v = (x.reshape(2 * pages, PAGE, *x.shape[2:])[order].contiguous() for x in tensors)
    return order.argsort().view(2, pages).to(torch.int32), (k, v)


def _appended(tensors: Cache, new: list[torch.Tensor], used: list[int]) -> Cache:
    """Return copies of k and v with the new rows behind those that are used."""
    k, v = copy(tensors[0]), copy(tensors[1])
    for place, fresh in zip((k, v), new):
        for at, length in enumerate(used):
            place[at, length : length + fresh.shape[1]] = fresh[at]
    return k, v


def _compare_cache(one: Trying, call: calls.Call, tensors: Tensors, expected: Cache, options: dict[str, Any]) -> None:
    """Record it where the cache does not have what was appended, or where anything else in it changed."""
    q, k, v = (copy(tensor) for tensor in tensors)
    call(q, k, v, **options)
    if not (torch.equal(k, expected[0]) and torch.equal(v, expected[1])):
        one.found["wrong"] = "the cache does not hold what was appended, and nothing else"
