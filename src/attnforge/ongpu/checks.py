"""Runs the cases of a check: calls the package, holds what it gives against what is right, and says how far it is off.

Memory that results may land in is filled with NaN before each call, so that what was never written shows.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable

import torch

from . import calls, reference

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# Bytes of the largest of the blocks that are filled with NaN, besides those of the sizes of results.
_BLOCK = 2**28

_PAGE = 256  # rows of a page: a multiple of 256 for FlashAttention 2 (flash_api.cpp)

_OPENED: dict[str, calls.Package] = {}

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer ``{"do": "open" | "case", "package", "device", ...}``."""
    package = request["package"]
    if package not in _OPENED:
        reference.exact()
        _OPENED[package] = calls.open_package(package)
    opened = _OPENED[package]
    if request["do"] == "open":
        return _described(opened)
    return _Run(opened, request["case"], request["rule"], request["device"]).answer()


def _described(package: calls.Package) -> dict[str, Any]:
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


class _Run:
    """One case: what is known of it, and what was measured."""

    def __init__(self, package: calls.Package, case: Mapping[str, Any], rule: str, device: str) -> None:
        self.package, self.case, self.rule, self.device = package, case, rule, device
        self.measures: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {}
        torch.manual_seed(zlib.crc32(case["name"].encode()))
        self.cuda = device.startswith("cuda")

    def answer(self) -> dict[str, Any]:
        began = time.monotonic()
        if self.case["left_out"] or self.case["refused"]:
            self.told["raised"] = self._raised()
        else:
            {
                "smoke": self._smoke,
                "dense": self._dense,
                "varlen": self._varlen,
                "cache": self._cache,
                "gradients": self._gradients,
                "dropout": self._dropout,
                "compile": self._compile,
                "graph": self._graph,
                "streams": self._streams,
                "devices": self._devices,
            }[self.case["call"]]()
        return {"measures": self.measures, "seconds": time.monotonic() - began, **self.told}

    # --- what is called with what

    def options(self) -> dict[str, Any]:
        """Return the options of the call and of the reference: those alone that ask for something."""
        case = self.case
        found: dict[str, Any] = {"causal": True} if case["causal"] else {}
        found.update({"softcap": case["softcap"]} if case["softcap"] else {})
        found.update({"window": tuple(case["window"])} if tuple(case["window"]) != (-1, -1) else {})
        found.update({"alibi": torch.rand(case["heads"], device=self.device)} if case["alibi"] else {})
        return found

    def own_options(self) -> dict[str, Any]:
        """Return the options of the call that no reference has."""
        case = self.case
        found: dict[str, Any] = {"layout": case["layout"]} if case["layout"] != "NHD" else {}
        found.update({"dropout": case["dropout"]} if case["dropout"] else {})
        found.update({"deterministic": True} if case["deterministic"] else {})
        return found

    def draw(self, *shape: int) -> torch.Tensor:
        """Return random numbers in the dtype of the case; for fp8, such as are fp8 numbers, in bfloat16."""
        drawn = torch.randn(shape, device=self.device)
        if self.case["dtype"] == "fp8":
            return drawn.to(torch.float8_e4m3fn).to(torch.bfloat16)
        return drawn.to(_DTYPES[self.case["dtype"]])

    def inputs(self) -> Tensors:
        """Return q, k and v, laid out in memory as the case says."""
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

    def call(self) -> calls.Call:
        function = self.package.kernels[self.case["kernel"]] if self.case["kernel"] else self.package.dense
        if self.case["dtype"] != "fp8":
            return function

        def in_fp8(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
            return function(*(tensor.to(torch.float8_e4m3fn) for tensor in tensors), **options)

        return in_fp8

    # --- how it is held against what is right

    def twice(self, call: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Call on copies, twice, with two ways of filling fresh memory with NaN; say whether both gave the same."""
        copies = [_copy(tensor) for tensor in tensors]
        with _filled_when_made():
            out = call(*copies)
        changed = [name for name, one, other in zip("qkv", copies, tensors) if not _same(one, other)]
        self.told["changed_inputs"] = changed
        copies = [_copy(tensor) for tensor in tensors]
        self.poison(out)
        again = call(*copies)
        self.told["repeats"] = self.told.get("repeats", True) and _same(out, again)
        return out

    def poison(self, like: torch.Tensor) -> None:
        """Fill free blocks of the caching allocator with NaN (all bits set), of the sizes that results may have."""
        if not self.cuda:
            return
        rows = max(1, like.numel() // like.shape[-1]) if like.dim() else 1
        for size in (_BLOCK, like.numel() * like.element_size(), like.numel() * 4, rows * 4):
            blocks = [torch.full((max(1, size),), 255, dtype=torch.uint8, device=self.device) for _ in range(3)]
            del blocks

    def hold(self, out: torch.Tensor, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]) -> None:
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
        softcap = bool(self.case["softcap"])
        self.measures.append(reference.judge(self.rule, out, expected, plain, gradient=gradient, softcap=softcap))

    # --- calls

    def _raised(self) -> str | None:
        """Make the call, which has to raise, and return what it said; None where it said nothing."""
        try:
            self._bare()
            if self.cuda:
                torch.cuda.synchronize()
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:2000]
        return None

    def _bare(self) -> None:
        if self.case["call"] == "varlen":
            tensors, starts, longest = self.packed()
            assert self.package.varlen is not None
            arguments, own = self.in_pages(tensors, starts[1])
            self.package.varlen(*arguments, *starts, *longest, **self.options(), **own)
        elif self.case["call"] == "cache":
            self._cache()
        elif self.case["call"] == "gradients":
            tensors = tuple(tensor.requires_grad_() for tensor in self.inputs())
            self.call()(*tensors, **self.options()).sum().backward()
        else:
            self.call()(*self.inputs(), **self.options(), **self.own_options())

    def _smoke(self) -> None:
        """Call upstream's own function as its README does, and say the shape of what comes back."""
        case = self.case
        shape = (2, 4, 128, case["head_dim"])
        tensors: tuple[torch.Tensor, ...] = tuple(self.draw(*shape) for _ in range(3))
        out = self.twice(lambda *copies: _first(self.package.function(*copies)), tensors)
        self.told["output"] = f"output = {out.shape}"
        if "HND" in self.package.layouts:  # its own default: 4 heads of 128 rows
            out, tensors = out.transpose(1, 2), tuple(tensor.transpose(1, 2) for tensor in tensors)
        self.hold(out, tensors, {})

    def _dense(self) -> None:
        tensors, options, own, call = self.inputs(), self.options(), self.own_options(), self.call()
        out = self.twice(lambda *copies: call(*copies, **options, **own), tensors)
        self.hold(out, tensors, options)

    def packed(self) -> tuple[Tensors, tuple[torch.Tensor, torch.Tensor], tuple[int, int]]:
        """Return packed q, k and v of all sequences, where each starts, and the longest of q and of k."""
        case, lengths = self.case, self.case["lengths"]
        rows, columns = [pair[0] for pair in lengths], [pair[1] for pair in lengths]
        q = self.draw(sum(rows), case["heads"], case["head_dim"])
        k, v = (self.draw(sum(columns), case["kv_heads"], case["head_dim"]) for _ in range(2))
        return (q, k, v), (self.starts(rows), self.starts(columns)), (max(rows), max(columns))

    def in_pages(self, tensors: Tensors, starts: torch.Tensor) -> tuple[Tensors, dict[str, Any]]:
        """Return the arguments of a varlen call: as they are, or k and v in pages of a cache, with their table."""
        if self.case["mode"] != "paged":
            return tensors, {}
        q, k, v = tensors
        places = starts.tolist()
        most = max(-(-(end - start) // _PAGE) for start, end in zip(places, places[1:]))
        table = torch.randperm(most * (len(places) - 1), device=self.device).view(-1, most)
        pages = []
        for tensor in (k, v):
            held = torch.full((table.numel(), _PAGE, *tensor.shape[1:]), float("nan"), device=self.device)
            for sequence, (start, end) in enumerate(zip(places, places[1:])):
                for at in range(start, end):
                    page = table[sequence, (at - start) // _PAGE]
                    held[page, (at - start) % _PAGE] = tensor[at]
            pages.append(held.to(tensor.dtype))
        return (q, pages[0], pages[1]), {"table": table.to(torch.int32)}

    def starts(self, lengths: list[int]) -> torch.Tensor:
        return self.integers([0, *torch.tensor(lengths).cumsum(0).tolist()])

    def integers(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self.device, dtype=torch.int32)

    def _varlen(self) -> None:
        tensors, starts, longest = self.packed()
        options, call = self.options(), self.package.varlen
        assert call is not None
        arguments, own = self.in_pages(tensors, starts[1])
        out = self.twice(lambda *copies: call(*copies, *starts, *longest, **options, **own), arguments)
        q, k, v = tensors
        for sequence in range(len(self.case["lengths"])):
            rows, keys = (slice(int(one[sequence]), int(one[sequence + 1])) for one in starts)
            if rows.stop > rows.start:
                self.hold(out[None, rows], (q[None, rows], k[None, keys], v[None, keys]), options)

    def _cache(self) -> None:
        """A cache of which the first is used a part, the second almost all of it."""
        case, mode = self.case, self.case["mode"]
        q, k, v = self.inputs()
        columns, rows = case["columns"], case["rows"]
        used = [columns * 3 // 5, columns - rows]
        own: dict[str, Any] = {"lengths": self.integers(used)}
        caches = [(k, v), (k, v)]
        if mode == "splits":
            own["splits"] = 5
        if mode == "index":
            own["index"] = self.integers([1, 0])
            k, v = k.flip(0).contiguous(), v.flip(0).contiguous()
        if mode == "paged":
            pages = columns // _PAGE
            order = torch.randperm(2 * pages, device=self.device)
            own["table"] = order.argsort().view(2, pages).to(torch.int32)
            k, v = (x.reshape(2 * pages, _PAGE, *x.shape[2:])[order].contiguous() for x in (k, v))
        if mode == "append":
            new = [self.draw(2, rows, case["kv_heads"], case["head_dim"]) for _ in range(2)]
            own.update(new_k=new[0], new_v=new[1])
            caches = [self._appended(caches[0], new, used)] * 2
            used = [length + rows for length in used]
        options, call = self.options(), self.package.cached
        assert call is not None
        out = self.twice(lambda *copies: call(*copies, **options, **own), (q, k, v))
        if mode == "append":
            self._hold_cache(call, (q, k, v), caches[0], {**options, **own})
        self.told.pop("changed_inputs")  # appending does, and has been looked at
        for at, length in enumerate(used):
            one = slice(at, at + 1)
            held = tuple(x[one, :length] for x in caches[at])
            self.hold(out[one], (q[one], *held), options)

    def _appended(self, cache: Any, new: Any, used: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        copies = [_copy(x) for x in cache]
        for copy, fresh in zip(copies, new):
            for at, length in enumerate(used):
                copy[at, length : length + fresh.shape[1]] = fresh[at]
        return copies[0], copies[1]

    def _hold_cache(self, call: calls.Call, tensors: Tensors, expected: Any, options: dict[str, Any]) -> None:
        """What was appended has to be in the cache, and all else as it was."""
        q, k, v = (_copy(tensor) for tensor in tensors)
        call(q, k, v, **options)
        if not (torch.equal(k, expected[0]) and torch.equal(v, expected[1])):
            self.told["wrong"] = "the cache does not hold what was appended, and nothing else"

    def _gradients(self) -> None:
        tensors, options, own = self.inputs(), self.options(), self.own_options()
        direction = self.draw(*tensors[0].shape)
        call = self.call()
        found = self._backward(lambda *one: call(*one, **options, **own), tensors, direction)
        if self.case["deterministic"]:
            again = self._backward(lambda *one: call(*one, **options, **own), tensors, direction)
            self.told["repeats"] = all(_same(one, other) for one, other in zip(found, again))
        exact = tuple(tensor.float() for tensor in tensors)
        expected = self._backward(lambda *one: reference.attention(*one, **options), exact, direction)
        plain = self._backward(lambda *one: reference.attention(*one, dtype=None, **options), tensors, direction)
        for one, wanted, simple in zip(found, expected, plain):
            self.measure(one, wanted, simple, gradient=True)

    def _backward(
        self, call: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...], direction: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        with _filled_when_made():
            out = call(*leaves)
            found: tuple[torch.Tensor, ...] = torch.autograd.grad(out, leaves, direction.to(out.dtype))
            return found

    def _dropout(self) -> None:
        """With equal scores and values of 1, a result is the share of weights that were kept, over what is expected.

        Its mean is 1 and its variance p / ((1 - p) columns). FlashAttention 2 compares 8 bits, which is exact for
        a quarter.
        """
        q, _, v = self.inputs()
        k = torch.zeros_like(v)
        options = {**self.options(), **self.own_options()}
        torch.manual_seed(1)
        out = self.call()(q, k, torch.ones_like(v), **options).float()[..., 0]
        torch.manual_seed(1)
        same = self.call()(q, k, torch.ones_like(v), **options).float()[..., 0]
        other = self.call()(q, k, torch.ones_like(v), **options).float()[..., 0]
        rate = self.case["dropout"]
        expected = rate / ((1 - rate) * self.case["columns"])
        mean, variance = out.mean().item(), out.var().item()
        self.told["figures"] = {"mean": mean, "variance": variance, "expected_variance": expected}
        # Six deviations of the mean of all rows, and what rounding to 16 bits may add.
        if not abs(mean - 1) <= 6 * (expected / out.numel()) ** 0.5 + 0.004:
            self.told["wrong"] = f"with dropout {rate} results average to {mean:.4f} of those without"
        elif not 0.7 * expected <= variance <= 1.3 * expected:
            self.told["wrong"] = f"dropout {rate} has a variance of {variance:.6f} and should have {expected:.6f}"
        elif _same(out, other):
            self.told["wrong"] = "dropout drops the same weights in each call"
        self.told["repeats"] = _same(out, same)

    # --- together with the rest of PyTorch

    def _compile(self) -> None:
        """One graph, without a break. What surrounds the call is left as it is: that code is not the wheel's."""
        tensors, function = self.inputs(), self.package.function
        expected = _first(function(*[_copy(tensor) for tensor in tensors]))
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)
        out = _first(compiled(*[_copy(tensor) for tensor in tensors]))
        self.equal(out, expected, "the compiled call gives something else")

    def _graph(self) -> None:
        if not self.cuda:
            self.told["skipped"] = "CUDA graphs need a GPU"
            return
        first, second, call = self.inputs(), self.inputs(), self.package.dense
        static = [_copy(tensor) for tensor in first]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are compiled and loaded before anything is captured
            for _ in range(2):
                call(*static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = call(*static)
        for tensors in (second, first):
            expected = call(*[_copy(tensor) for tensor in tensors])
            for place, tensor in zip(static, tensors):
                place.copy_(tensor)
            out.fill_(float("nan"))
            graph.replay()
            self.equal(out, expected, "the replayed graph gives something else")

    def _streams(self) -> None:
        if not self.cuda:
            self.told["skipped"] = "streams need a GPU"
            return
        sides, call = (self.inputs(), self.inputs()), self.package.dense
        expected = [call(*[_copy(tensor) for tensor in tensors]) for tensors in sides]
        copies = [[[_copy(tensor) for tensor in tensors] for _ in range(8)] for tensors in sides]
        torch.cuda.synchronize()
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        outs: list[list[torch.Tensor]] = [[], []]
        for turn in range(8):
            for side in (0, 1):
                with torch.cuda.stream(streams[side]):
                    outs[side].append(call(*copies[side][turn]))
        torch.cuda.synchronize()
        for side in (0, 1):
            for out in outs[side]:
                self.equal(out, expected[side], "calls in two streams disturb each other")

    def _devices(self) -> None:
        if not self.cuda or torch.cuda.device_count() < 2:
            self.told["skipped"] = "this machine has one GPU" if self.cuda else "devices need GPUs"
            return
        tensors = self.inputs()
        there = tuple(tensor.to("cuda:1") for tensor in tensors)
        out = self.package.dense(*[_copy(tensor) for tensor in there])
        torch.cuda.synchronize(1)
        if out.device != there[0].device:
            self.told["wrong"] = f"inputs on {there[0].device} give a result on {out.device}"
            return
        self.hold(out, there, {})

    def equal(self, out: torch.Tensor, expected: torch.Tensor, otherwise: str) -> None:
        if not _same(out, expected):
            self.told["wrong"] = otherwise


def _first(found: Any) -> torch.Tensor:
    out: torch.Tensor = found[0] if isinstance(found, (tuple, list)) else found
    return out


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy that lies in memory as the tensor does: strides are kept, what lies between is not shared."""
    if tensor.is_contiguous():
        return tensor.clone()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    place = torch.empty(extent, dtype=tensor.dtype, device=tensor.device)
    return place.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results are the same to the bit, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


@contextmanager
def _filled_when_made() -> Iterator[None]:
    """Have PyTorch fill whatever is allocated without a value with NaN, in Python and in C++ alike."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
