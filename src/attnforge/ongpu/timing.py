"""Times attention in this process: makes inputs, prepares a call, times it when asked, so that sides can take turns.

Requests say what to do by ``do``: ``open`` a package, ``prepare`` a call of one of its kernels in a cell, ``time`` a
prepared call, ``rates`` of the GPU itself, ``clear`` what the cell held. A cell is ``model/benchmark.py``'s as JSON.
``device`` is ``cuda``, or ``cpu`` so that all of it can be tried without a GPU.
"""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, field
from typing import Callable

import torch

from . import calls, reference
from .protocol import AccuracyFound, CellToTime, Prepared, RatesFound, Timing, TimingRequest

Tensors = tuple[torch.Tensor, ...]

# Inputs rotate through so many times the size of the GPU's L2 cache, so that no call finds its inputs in the cache.
_CACHES = 2

# Bytes of L2 where PyTorch does not report it: more than any GPU of today has.
_L2_BYTES = 128 * 2**20
_MOST_SETS = 64

# A set of so many times the cache is enough: when its end is read, little of its beginning is still in the cache.
_ALONE = 16

# Rows of queries at the start, the middle and the end that are compared with the reference.
_ROWS = 64

# Milliseconds. A shorter call gets another one before it, which is not timed, so that the GPU is busy with it.
_SHORT_MS = 20.0

# The GPU is held back while the CPU issues calls, at its highest clock: cycles for each microsecond, and at most.
_CYCLES = 2000
_LONGEST_HOLD = 200_000_000

# The yardsticks: sides of the matrices, and bytes of the copy.
_MATRIX = {"cuda": 8192, "cpu": 256}
_COPY_BYTES = {"cuda": 2**29, "cpu": 2**22}

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class NotPreparedError(Exception):
    """The call is not prepared in this process: it is a new one."""


@dataclass
class _Call:
    """A call on each of some sets of inputs: ``ms`` and ``host_us`` are estimates of its time and of issuing it."""

    run: Callable[[int], torch.Tensor]
    sets: int
    ms: float = 0.0
    host_us: float = 0.0
    next: int = 0


@dataclass
class _Held:
    """The state of this process: opened packages, inputs and prepared calls of one cell, the yardsticks' buffers."""

    packages: dict[str, calls.Package] = field(default_factory=dict)
    inputs: list[Tensors] = field(default_factory=list)
    prepared: dict[str, _Call] = field(default_factory=dict)
    buffers: dict[str, Tensors] = field(default_factory=dict)


_HELD = _Held()


def answer(request: TimingRequest) -> object:
    """Answer a request by its ``do``."""
    return _ANSWERS[request["do"]](request)


def _open(request: TimingRequest) -> dict[str, list[str]]:
    """Import a package, and return the names of its kernels."""
    return {"kernels": sorted(_package(request["package"]).kernels)}


def _package(name: str) -> calls.Package:
    if name not in _HELD.packages:
        _HELD.packages[name] = calls.open_package(name)
    return _HELD.packages[name]


def _clear(request: TimingRequest) -> dict[str, object]:
    """Free the memory of a cell."""
    _HELD.inputs.clear()
    _HELD.prepared.clear()
    gc.collect()
    if request["device"] == "cuda":
        torch.cuda.empty_cache()
    return {}


def _prepare(request: TimingRequest) -> Prepared:
    """Prepare a call: inputs, a first call (which may compile), accuracy, an estimate of the time.

    ``kernel`` is one of the package's, "" for its default.
    """
    cell, device, kernel = request["cell"], request["device"], request["kernel"]
    reference.exact()
    if device == "cpu":
        torch.set_num_threads(1)  # with several threads, other load on the machine would change the times
    attention = _attention(_package(request["package"]), kernel, cell)
    if not _HELD.inputs:
        _HELD.inputs.extend(_make_inputs(cell, device, request["dtype"]))
    call = _backward(attention, _HELD.inputs) if cell["backward"] else _forward(attention, _HELD.inputs)
    prepared = _Call(call, len(_HELD.inputs))
    accuracy = _accuracy(cell, _HELD.inputs[0], call(0))
    _estimate(prepared, device)
    _HELD.prepared[kernel] = prepared
    return {"ms": prepared.ms, "host_us": prepared.host_us, "sets": prepared.sets, "accuracy": accuracy}


def _attention(package: calls.Package, kernel: str, cell: CellToTime) -> Callable[[Tensors], torch.Tensor]:
    """Return the call of a kernel on q, k, v; for the next token, the package's call with a cache where it has one."""
    shape = cell["shape"]
    call = package.kernels[kernel] if kernel else package.dense
    if shape["kind"] == "decode" and package.cached and not kernel:
        call = package.cached
    options = {"causal": True} if shape["causal"] else {}
    return lambda tensors: call(*tensors[:3], **options)


def _make_inputs(cell: CellToTime, device: str, dtype: str) -> list[Tensors]:
    """Return sets of q, k, v and a gradient of the output, normal random numbers."""
    shape, backward = cell["shape"], cell["backward"]
    rows = (shape["batch"], shape["rows"], shape["heads"], shape["head_dim"])
    columns = (shape["batch"], shape["columns"], shape["kv_heads"], shape["head_dim"])
    sizes = (rows, columns, columns, rows) if backward else (rows, columns, columns)
    torch.manual_seed(0)
    count = _count_of_sets(2 * sum(math.prod(size) for size in sizes), device)
    made = []
    for _ in range(count):
        tensors = tuple(torch.randn(size, device=device, dtype=_DTYPES[dtype]) for size in sizes)
        made.append(tuple(x.requires_grad_(backward and at < 3) for at, x in enumerate(tensors)))
    return made


def _count_of_sets(size: int, device: str) -> int:
    if device != "cuda":
        return 2
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0) or _L2_BYTES
    return 1 if size >= _ALONE * cache else min(_MOST_SETS, 1 + math.ceil(_CACHES * cache / size))


def _forward(attention: Callable[[Tensors], torch.Tensor], inputs: list[Tensors]) -> Callable[[int], torch.Tensor]:
    def run(at: int) -> torch.Tensor:
        with torch.no_grad():
            return attention(inputs[at])

    return run


def _backward(attention: Callable[[Tensors], torch.Tensor], inputs: list[Tensors]) -> Callable[[int], torch.Tensor]:
    """Return the backward pass only: the forward passes are done here, once for each set."""
    outs = [attention(tensors) for tensors in inputs]

    def run(at: int) -> torch.Tensor:
        gradients = torch.autograd.grad(outs[at], inputs[at][:3], inputs[at][3], retain_graph=True)
        return gradients[0]

    return run


def _accuracy(cell: CellToTime, inputs: Tensors, found: torch.Tensor) -> AccuracyFound:
    """Compare some rows of the output, or of the gradient of q, with attention in float32.

    A row depends only on its own query, so a few rows of a hundred thousand can be computed separately.
    """
    rows = cell["shape"]["rows"]
    starts = sorted({0, max(0, (rows - _ROWS) // 2), max(0, rows - _ROWS)}) if rows > 3 * _ROWS else [0]
    ends = [min(rows, start + _ROWS) for start in starts] if rows > 3 * _ROWS else [rows]
    expected = [_expected(cell, inputs, start, end) for start, end in zip(starts, ends)]
    seen = [found[:, start:end] for start, end in zip(starts, ends)]
    judged = reference.judge("quantized", torch.cat(seen, 1), torch.cat(expected, 1))
    return {
        "cosine": judged["cosine"],
        "mean_relative": judged["mean_relative"],
        "largest_error": judged["largest_error"],
        "not_finite": judged["not_finite"],
        "right": judged["ok"],
    }


def _expected(cell: CellToTime, inputs: Tensors, start: int, end: int) -> torch.Tensor:
    shape = cell["shape"]
    # Masks are aligned at the end: what the last of these rows sees ends where they end.
    seen = end + shape["columns"] - shape["rows"] if shape["causal"] else shape["columns"]
    q = inputs[0].detach()[:, start:end].float().requires_grad_(cell["backward"])
    k, v = (x.detach()[:, :seen] for x in inputs[1:3])
    out = reference.attention(q, k, v, causal=shape["causal"])
    if not cell["backward"]:
        return out
    return torch.autograd.grad(out, q, inputs[3][:, start:end].float())[0]


def _estimate(prepared: _Call, device: str) -> None:
    """Estimate the time of a call; a long call is timed once."""
    prepared.ms, prepared.host_us = _timed(prepared, 1, device)
    if prepared.ms < _SHORT_MS:
        for _ in range(2):  # the second uses the first one's host time to hold the GPU back
            prepared.ms, prepared.host_us = _timed(prepared, 5, device)


def _time(request: TimingRequest) -> Timing:
    """Time ``calls`` calls in a row; ``ms`` is the mean of one."""
    prepared = _HELD.prepared.get(request["kernel"])
    if prepared is None:
        raise NotPreparedError(request["kernel"])
    ms, host_us = _timed(prepared, request["calls"], request["device"])
    return {"ms": ms, "host_us": host_us}


def _timed(prepared: _Call, count: int, device: str) -> tuple[float, float]:
    """Return milliseconds of a call, and the microseconds that the CPU took to issue it."""

    def run() -> None:
        prepared.run(prepared.next)
        prepared.next = (prepared.next + 1) % prepared.sets

    return _timed_on[device](run, count, prepared.ms, prepared.host_us)


def _timed_on_gpu(run: Callable[[], object], count: int, ms: float, host_us: float) -> tuple[float, float]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    _hold_back(host_us * (count + 1))
    if ms < _SHORT_MS:
        run()
    start.record()
    began = time.perf_counter()
    for _ in range(count):
        run()
    issued = time.perf_counter() - began
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / count, issued / count * 1e6


def _hold_back(microseconds: float) -> None:
    """Keep the GPU busy while calls are issued. Otherwise short calls would be timed at the pace of the CPU."""
    hold = getattr(torch.cuda, "_sleep", None)
    if hold is not None:
        hold(min(_LONGEST_HOLD, int(_CYCLES * (50 + 1.5 * microseconds))))


def _timed_on_cpu(run: Callable[[], object], count: int, ms: float, host_us: float) -> tuple[float, float]:
    began = time.perf_counter()
    for _ in range(count):
        run()
    taken = time.perf_counter() - began
    return taken / count * 1e3, taken / count * 1e6


_timed_on = {"cuda": _timed_on_gpu, "cpu": _timed_on_cpu}


def _rates(request: TimingRequest) -> RatesFound:
    """Measure the yardsticks: ``matrix`` in TFLOP/s of a bf16 product, ``memory`` in GB/s of a copy, read and write."""
    device = request["device"]
    if not _HELD.buffers:
        side, size = _MATRIX[device], _COPY_BYTES[device]
        product = tuple(torch.randn((side, side), device=device).to(torch.bfloat16) for _ in range(3))
        copies = tuple(torch.zeros(size, device=device, dtype=torch.uint8) for _ in range(2))
        _HELD.buffers.update(product=product, copies=copies)
    a, b, out = _HELD.buffers["product"]
    source, target = _HELD.buffers["copies"]
    timed = _timed_on[device]
    product_ms, _ = timed(lambda: torch.mm(a, b, out=out), 8, 0.0, 100.0)
    copy_ms, _ = timed(lambda: target.copy_(source), 8, 0.0, 100.0)
    return {"matrix": 2 * len(a) ** 3 / product_ms / 1e9, "memory": 2 * len(source) / copy_ms / 1e6}


_ANSWERS: dict[str, Callable[[TimingRequest], object]] = {
    "open": _open,
    "prepare": _prepare,
    "time": _time,
    "rates": _rates,
    "clear": _clear,
}
