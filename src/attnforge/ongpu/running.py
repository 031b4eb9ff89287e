"""Cases of calls together with the rest of PyTorch: torch.compile, CUDA graphs, streams, several GPUs."""

from __future__ import annotations

import torch

from .calls import first
from .memory import copy
from .trying import Tensors, Trying


def compiled(one: Trying) -> None:
    """Compile the call into one graph, without a break. The code around it is not compiled: it is not the wheel's."""
    tensors, function = one.inputs(), one.package.function
    expected = first(function(*_copies(tensors)))
    made = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)
    one.equal(first(made(*_copies(tensors))), expected, "the compiled call gives something else")


def graph(one: Trying) -> None:
    """Capture the call in a CUDA graph and replay it on other inputs."""
    if not one.cuda:
        one.found["skipped"] = "CUDA graphs need a GPU"
        return
    inputs, other, call = one.inputs(), one.inputs(), one.package.dense
    static = _copies(inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are compiled and loaded before anything is captured
        for _ in range(2):
            call(*static)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        out = call(*static)
    for tensors in (other, inputs):
        expected = call(*_copies(tensors))
        for place, tensor in zip(static, tensors):
            place.copy_(tensor)
        out.fill_(float("nan"))
        captured.replay()
        one.equal(out, expected, "the replayed graph gives something else")


def streams(one: Trying) -> None:
    """Make calls in two streams at the same time."""
    if not one.cuda:
        one.found["skipped"] = "streams need a GPU"
        return
    sides, call = (one.inputs(), one.inputs()), one.package.dense
    expected = [call(*_copies(tensors)) for tensors in sides]
    copies = [[_copies(tensors) for _ in range(8)] for tensors in sides]
    torch.cuda.synchronize()
    both = [torch.cuda.Stream(), torch.cuda.Stream()]
    outs: list[list[torch.Tensor]] = [[], []]
    for turn in range(8):
        for side in (0, 1):
            with torch.cuda.stream(both[side]):
                outs[side].append(call(*copies[side][turn]))
    torch.cuda.synchronize()
    for side in (0, 1):
        for out in outs[side]:
            one.equal(out, expected[side], "calls in two streams disturb each other")


def devices(one: Trying) -> None:
    """Call on the second GPU while the first is the current one."""
    if not one.cuda or torch.cuda.device_count() < 2:
        one.found["skipped"] = "this machine has one GPU" if one.cuda else "devices need GPUs"
        return
    there = tuple(tensor.to("cuda:1") for tensor in one.inputs())
    out = one.package.dense(*[copy(tensor) for tensor in there])
    torch.cuda.synchronize(1)
    if out.device != there[0].device:
        one.found["wrong"] = f"inputs on {there[0].device} give a result on {out.device}"
        return
    one.compare(out, there, {})


def _copies(tensors: Tensors) -> list[torch.Tensor]:
    return [copy(tensor) for tensor in tensors]
