"""One way to call every package: FlashAttention 2, 3 and 4, SageAttention 1 and 2, PyTorch's own attention (SDPA).

``open_package`` imports one and returns a ``Package``. Its calls take q of (batch, rows, heads, head_dim), k and v of
(batch, columns, kv_heads, head_dim), and give out of q's shape, whatever layout the package itself likes best.
Options have one name for all packages, which ``_FLASH_2`` and the tables after it turn into the package's own; a call
with an option that the package's own function lacks raises ``UnsupportedError``.

Signatures: flash_attn/flash_attn_interface.py of the 2.8.3 sdist, hopper/flash_attn_interface.py of FlashAttention,
interface.py of the flash-attn-4 4.0.0b36 sdist, sageattention/core.py of 1.0.6 and of https://github.com/thu-ml/SageAttention.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

import torch

Call = Callable[..., torch.Tensor]


class UnsupportedError(Exception):
    """The package's own function has no such option."""


@dataclass(frozen=True)
class Package:
    """An imported package.

    ``dense(q, k, v, **options)``; ``varlen(q, k, v, starts_q, starts_k, longest_q, longest_k, **options)`` on packed
    (total, heads, head_dim) with int32 starts of (sequences + 1,); ``cached(q, k_cache, v_cache, **options)``. The
    last two are None where the package has no such call. ``kernels`` are all its functions that are called as
    ``dense`` is, by upstream's names. ``takes``, ``varlen_takes`` and ``cache_takes`` are the options that
    ``dense``, ``varlen`` and ``cached`` have. ``layouts`` are those that ``dense(..., layout=)`` can pass: NHD
    unchanged, HND as a transposed copy.
    """

    name: str
    version: str
    main: str
    function: Callable[..., Any]
    dense: Call
    varlen: Call | None = None
    cached: Call | None = None
    kernels: Mapping[str, Call] = field(default_factory=dict)
    takes: frozenset[str] = frozenset()
    varlen_takes: frozenset[str] = frozenset()
    cache_takes: frozenset[str] = frozenset()
    layouts: tuple[str, ...] = ("NHD",)


# causal: aligned at the end; scale: of scores, default head_dim ** -0.5; window: (left, right), -1 is no limit;
# alibi: slopes of (heads,) in float32; dropout: probability; deterministic: gradients without atomics;
# descale_q, descale_k, descale_v: factors of fp8 inputs, (batch, kv_heads) in float32.
_FLASH_2 = {
    "causal": "causal",
    "scale": "softmax_scale",
    "window": "window_size",
    "softcap": "softcap",
    "alibi": "alibi_slopes",
    "dropout": "dropout_p",
    "deterministic": "deterministic",
}
# Of calls with a cache, besides: lengths (batch,) int32 of what is used of it; table (batch, pages) int32 of a paged
# one, whose k and v are (pages, page_size, kv_heads, head_dim); index (batch,) int32 of the rows of the cache that
# are meant; new_k, new_v (batch, new, kv_heads, head_dim), appended in place; splits: how many split-KV parts, 0 by
# heuristic.
_FLASH_2_CACHE = {
    **_FLASH_2,
    "lengths": "cache_seqlens",
    "table": "block_table",
    "index": "cache_batch_idx",
    "new_k": "k",
    "new_v": "v",
    "splits": "num_splits",
}
_FLASH_2_VARLEN = {**_FLASH_2, "table": "block_table"}
_FLASH_3 = {
    "causal": "causal",
    "scale": "softmax_scale",
    "window": "window_size",
    "softcap": "softcap",
    "deterministic": "deterministic",
    "descale_q": "q_descale",
    "descale_k": "k_descale",
    "descale_v": "v_descale",
}
_FLASH_3_CACHE = {**_FLASH_2_CACHE, **_FLASH_3, "table": "page_table"}
_FLASH_4 = {
    "causal": "causal",
    "scale": "softmax_scale",
    "window": "window_size",
    "softcap": "softcap",
    "deterministic": "deterministic",
}
# After q, k and v its calls differ from FlashAttention 2's, so packed sequences are passed by name.
_FLASH_4_PACKED = {
    "starts_q": "cu_seqlens_q",
    "starts_k": "cu_seqlens_k",
    "longest_q": "max_seqlen_q",
    "longest_k": "max_seqlen_k",
}
_SAGE = {"causal": "is_causal", "scale": "sm_scale", "layout": "tensor_layout"}


def open_package(name: str) -> Package:
    """Import a package by its distribution name: flash-attn, flash-attn-3, flashattn-hopper, flash-attn-4,
    sageattention; or ``sdpa``.

    Raises ImportError where it can't be imported, KeyError for an unknown name.
    """
    return _OPENERS[name]()


def knows(name: str) -> bool:
    """Whether ``open_package`` knows a distribution name."""
    return name in _OPENERS


def _flash_2() -> Package:
    module = importlib.import_module("flash_attn")
    return _flash("flash-attn", module, getattr(module, "__version__", ""), _FLASH_2, _FLASH_2_CACHE)


def _flash_3() -> Package:
    module = importlib.import_module("flash_attn_interface")
    return _flash("flash-attn-3", module, "", _FLASH_3, _FLASH_3_CACHE)


def _flash_4() -> Package:
    module = importlib.import_module("flash_attn.cute")
    dense = _translated(module.flash_attn_func, _FLASH_4)
    packed = _translated(module.flash_attn_varlen_func, {**_FLASH_4, **_FLASH_4_PACKED})

    def varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *where: Any, **options: Any) -> torch.Tensor:
        return packed(q, k, v, **dict(zip(_FLASH_4_PACKED, where)), **options)

    return Package(
        name="flash-attn-4",
        version=_installed("flash-attn-4"),
        main="flash_attn_func",
        function=module.flash_attn_func,
        dense=dense,
        varlen=varlen,
        kernels={"flash_attn_func": dense},
        varlen_takes=_taken(module.flash_attn_varlen_func, _FLASH_4),
        takes=_taken(module.flash_attn_func, _FLASH_4),
    )


def _installed(name: str) -> str:
    """Return the version that a distribution's metadata states; its ``__version__`` asks for another name's."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _flash(name: str, module: Any, version: str, names: Mapping[str, str], cache_names: Mapping[str, str]) -> Package:
    function, cached = module.flash_attn_func, getattr(module, "flash_attn_with_kvcache", None)
    dense = _translated(function, names)
    kernels = {"flash_attn_func": dense}
    if hasattr(module, "flash_attn_qkvpacked_func"):
        packed = _translated(module.flash_attn_qkvpacked_func, names)
        kernels["flash_attn_qkvpacked_func"] = lambda q, k, v, **options: packed(torch.stack((q, k, v), 2), **options)
    if hasattr(module, "flash_attn_kvpacked_func"):
        half = _translated(module.flash_attn_kvpacked_func, names)
        kernels["flash_attn_kvpacked_func"] = lambda q, k, v, **options: half(q, torch.stack((k, v), 2), **options)
    return Package(
        name=name,
        version=version,
        main="flash_attn_func",
        function=function,
        dense=dense,
        varlen=_translated(module.flash_attn_varlen_func, _FLASH_2_VARLEN),
        cached=_translated(cached, cache_names) if cached else None,
        kernels=kernels,
        varlen_takes=_taken(module.flash_attn_varlen_func, _FLASH_2_VARLEN),
        takes=_taken(function, names),
        cache_takes=_taken(cached, cache_names) if cached else frozenset(),
    )


def _sage() -> Package:
    module = importlib.import_module("sageattention")
    kernels = {
        name: _in_layout(_translated(getattr(module, name), _SAGE))
        for name in sorted(vars(module))
        if name.startswith("sageattn") and name != "sageattn_varlen" and callable(getattr(module, name))
    }
    varlen = getattr(module, "sageattn_varlen", None)
    return Package(
        name="sageattention",
        version=getattr(module, "__version__", ""),
        main="sageattn",
        function=module.sageattn,
        dense=kernels["sageattn"],
        varlen=_translated(varlen, _SAGE) if varlen else None,
        kernels=kernels,
        takes=_taken(module.sageattn, _SAGE) - {"layout"},
        layouts=("NHD", "HND"),
    )


def _sdpa() -> Package:
    kernels = {name: _backend(name) for name in ("flash", "efficient", "cudnn", "math")}
    return Package(
        name="sdpa",
        version=torch.__version__,
        main="",
        function=torch.nn.functional.scaled_dot_product_attention,
        dense=_backend(""),
        kernels=kernels,
        takes=frozenset({"causal", "scale", "dropout"}),
    )


_OPENERS: dict[str, Callable[[], Package]] = {
    "flash-attn": _flash_2,
    "flash-attn-3": _flash_3,
    "flashattn-hopper": _flash_3,
    "flash-attn-4": _flash_4,
    "sageattention": _sage,
    "sdpa": _sdpa,
}


def first(result: Any) -> torch.Tensor:
    """Return the output of a call: of several results it is the first."""
    out: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else result
    return out


def _translated(function: Callable[..., Any], names: Mapping[str, str]) -> Call:
    """Call a package's function with our names of options."""
    taken = _taken(function, names)

    def call(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        missing = sorted(options.keys() - taken)
        if missing:
            raise UnsupportedError(f"{function.__name__} has no option for {', '.join(missing)}")
        return first(function(*tensors, **{names[option]: value for option, value in options.items()}))

    return call


def _taken(function: Callable[..., Any], names: Mapping[str, str]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters
    return frozenset(option for option, name in names.items() if name in parameters)


def _in_layout(call: Call) -> Call:
    """Call a function of SageAttention, whose own default layout is HND: (batch, heads, rows, head_dim)."""

    def in_layout(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: str = "NHD", **options: Any
    ) -> torch.Tensor:
        if layout == "NHD":
            return call(q, k, v, layout=layout, **options)
        swapped = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        return call(*swapped, layout=layout, **options).transpose(1, 2)

    return in_layout


def _backend(name: str) -> Call:
    """Call PyTorch's attention with one backend; "" lets it choose. Raises RuntimeError where it can't serve a call."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    allowed = [backends[name]] if name else list(backends.values())

    def call(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        causal: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> torch.Tensor:
        options: dict[str, Any] = {"scale": scale, "dropout_p": dropout}
        if q.shape[2] != k.shape[2]:
            options["enable_gqa"] = True
        if causal and q.shape[1] == k.shape[1]:
            options["is_causal"] = True
        elif causal and q.shape[1] > 1:  # is_causal is aligned at the start; one row, at the end, sees all
            from torch.nn.attention.bias import causal_lower_right

            options["attn_mask"] = causal_lower_right(q.shape[1], k.shape[1])
        with sdpa_kernel(allowed):
            swapped = (x.transpose(1, 2) for x in (q, k, v))
            return torch.nn.functional.scaled_dot_product_attention(*swapped, **options).transpose(1, 2)

    return call
