"""One case of a check: its inputs and options, its call, and the comparison of the result with the reference."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Callable

import torch

from . import calls, reference
from .memory import copy, filled_when_made, poison, same
from .protocol import CaseToRun, CheckAnswer

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Trying:
    """A case with its package. ``found`` is the answer so far. The case's name seeds its random numbers."""

    def __init__(self, package: calls.Package, case: CaseToRun, rule: str, device: str) -> None:
        self.package, self.case, self.rule, self.device = package, case, rule, device
        self.found: CheckAnswer = {"measures": []}
        self.cuda = device.startswith("cuda")
        torch.manual_seed(zlib.crc32(case["name"].encode()))

    # --- what is called with what

    def options(self) -> dict[str, Any]:
        """Return the options that the call and the reference share: only those that the case asks for."""
        case = self.case
        found: dict[str, Any] = {"causal": True} if case["causal"] else {}
        found.update({"softcap": case["softcap"]} if case["softcap"] else {})
        found.update({"window": tuple(case["window"])} if tuple(case["window"]) != (-1, -1) else {})
        found.update({"alibi": torch.rand(case["heads"], device=self.device)} if case["alibi"] else {})
        return found

    def own_options(self) -> dict[str, Any]:
        """Return the options of the call that the reference does not have."""
        case = self.case
        found: dict[str, Any] = {"layout": case["layout"]} if case["layout"] != "NHD" else {}
        found.update({"dropout": case["dropout"]} if case["dropout"] else {})
        found.update({"deterministic": True} if case["deterministic"] else {})
        return found

    def draw(self, *shape: int) -> torch.Tensor:
        """Return normal random numbers in the dtype of the case; for fp8, numbers that fp8 has, in bfloat16."""
        drawn = torch.randn(shape, device=self.device)
        if self.case["dtype"] == "fp8":
            return drawn.to(torch.float8_e4m3fn).to(torch.bfloat16)
        return drawn.to(_DTYPES[self.case["dtype"]])

    def inputs(self) -> Tensors:
        """Return q, k and v with the strides that the case asks for."""
        case = self.case
        batch, head_dim = case["batch"], case["head_dim"]
        if case["strided"] == "packed":
            q, k, v = self.draw(batch, case["rows"], 3, case["heads"], head_dim).unbind(2)
            return q, k, v
        sizes = [(case["rows"], case["heads"]), *[(case["columns"], case["kv_heads"])] * 2]
        if case["strided"] == "transposed":
            drawn = [self.draw(batch, heads, rows, head_dim).transpose(1, 2) for rows, heads in sizes]
        else:
            drawn = [self.draw(batch, rows, heads, head_dim) for rows, heads in sizes]
        return drawn[0], drawn[1], drawn[2]

    def integers(self, values: Any) -> torch.Tensor:
        """Return an int32 tensor on the device of the case."""
        return torch.tensor(values, device=self.device, dtype=torch.int32)

    def call(self) -> calls.Call:
        """Return the function that the case calls; for fp8, it converts its inputs."""
        function = self.package.kernels[self.case["kernel"]] if self.case["kernel"] else self.package.dense
        if self.case["dtype"] != "fp8":
            return function
        return lambda *tensors, **options: function(*(one.to(torch.float8_e4m3fn) for one in tensors), **options)

    # --- the result

    def twice(self, call: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Call twice on copies, with two ways of filling fresh memory with NaN, and return the first result.

        Records whether both calls gave the same, and which inputs the first one changed.
        """
        copies = [copy(tensor) for tensor in tensors]
        with filled_when_made():
            out = call(*copies)
        self.found["changed_inputs"] = [
            name for name, one, other in zip("qkv", copies, tensors) if not same(one, other)
        ]
        copies = [copy(tensor) for tensor in tensors]
        poison(out)
        again = call(*copies)
        self.found["repeats"] = self.found.get("repeats", True) and same(out, again)
        return out

    def compare(self, out: torch.Tensor, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]) -> None:
        """Measure a result against the reference, by the package's rule."""
        expected = reference.attention(*tensors, **options)
        plain = None
        if self.rule != "quantized":
            rounded = torch.float8_e4m3fn if self.case["dtype"] == "fp8" else None
            plain = reference.attention(*tensors, dtype=None, weights_dtype=rounded, **options)
        self.measure(out, expected, plain)

    def measure(
        self, out: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor | None, gradient: bool = False
    ) -> None:
        """Record how far a result is from what is expected."""
        softcap = bool(self.case["softcap"])
        judged = reference.judge(self.rule, out, expected, plain, gradient=gradient, softcap=softcap)
        self.found["measures"].append(judged)

    def equal(self, out: torch.Tensor, expected: torch.Tensor, otherwise: str) -> None:
        """Record ``otherwise`` where two results are not the same to the bit."""
        if not same(out, expected):
            self.found["wrong"] = otherwise
