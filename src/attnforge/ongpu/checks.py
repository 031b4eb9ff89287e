"""Runs the cases of a check: calls the package, compares its results with the reference, says how far they are off.

Memory that results may be in is filled with NaN before each call, so that elements that were never written show.
"""

from __future__ import annotations

import time
from typing import Callable

import torch

from . import cached, calls, packed, reference, running, training
from .protocol import CheckAnswer, CheckRequest, Opened
from .trying import Trying

_OPENED: dict[str, calls.Package] = {}


def answer(request: CheckRequest) -> Opened | CheckAnswer:
    """Open a package or run a case of it."""
    package = request["package"]
    if package not in _OPENED:
        reference.exact()
        _OPENED[package] = calls.open_package(package)
    opened = _OPENED[package]
    if request["do"] == "open":
        return _described(opened)
    return _run(Trying(opened, request["case"], request["rule"], request["device"]))


def _described(package: calls.Package) -> Opened:
    return {
        "version": package.version,
        "takes": sorted(package.takes),
        "kernels": list(package.kernels),
        "main": package.main,
        "layouts": list(package.layouts),
        "varlen": package.varlen is not None,
        "varlen_takes": sorted(package.varlen_takes),
        "cache": package.cached is not None,
        "cache_takes": sorted(package.cache_takes),
    }


def _run(one: Trying) -> CheckAnswer:
    began = time.monotonic()
    if one.case["left_out"] or one.case["refused"]:
        one.found["raised"] = _raised(one)
    else:
        _CALLS[one.case["call"]](one)
    one.found["seconds"] = time.monotonic() - began
    return one.found


def _raised(one: Trying) -> str | None:
    """Make the call, which has to raise, and return its message; None where it raised nothing."""
    try:
        _CALLS_ONLY.get(one.case["call"], _call_only)(one)
        if one.cuda:
            torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:2000]
    return None


def _call_only(one: Trying) -> None:
    one.call()(*one.inputs(), **one.options(), **one.own_options())


def _smoke(one: Trying) -> None:
    """Call upstream's own function as its README does, and record the shape of the result."""
    tensors: tuple[torch.Tensor, ...] = tuple(one.draw(2, 4, 128, one.case["head_dim"]) for _ in range(3))
    out = one.twice(lambda *copies: calls.first(one.package.function(*copies)), tensors)
    one.found["output"] = f"output = {out.shape}"
    if "HND" in one.package.layouts:  # its own default: 4 heads of 128 rows
        out, tensors = out.transpose(1, 2), tuple(tensor.transpose(1, 2) for tensor in tensors)
    one.compare(out, tensors, {})


def _dense(one: Trying) -> None:
    tensors, options, own, call = one.inputs(), one.options(), one.own_options(), one.call()
    out = one.twice(lambda *copies: call(*copies, **options, **own), tensors)
    one.compare(out, tensors, options)


_CALLS: dict[str, Callable[[Trying], None]] = {
    "smoke": _smoke,
    "dense": _dense,
    "varlen": packed.varlen,
    "cache": cached.cache,
    "gradients": training.gradients,
    "dropout": training.dropout,
    "compile": running.compiled,
    "graph": running.graph,
    "streams": running.streams,
    "devices": running.devices,
}

# Calls that have to raise; the others are dense ones.
_CALLS_ONLY: dict[str, Callable[[Trying], None]] = {
    "varlen": packed.call_only,
    "cache": cached.cache,
    "gradients": training.call_only,
}
