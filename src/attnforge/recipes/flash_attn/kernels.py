"""FlashAttention 2: units of kernels without the variants that no GPU launches (variants.py).

A header that units include first specializes the functions that would launch them. The unit without these changes is
kept as its fallback.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Pass, Unit
from attnforge.model.target import Architecture
from attnforge.recipes.cxx import cxx
from attnforge.recipes.flash_attn.neutral import Layout, neutral_headers
from attnforge.recipes.flash_attn.variants import Variant, in_common, symbol_pattern

_FUNCTIONS = {"forward": "run_flash_fwd", "backward": "run_flash_bwd"}
_TRAITS = {"forward": "Flash_fwd_kernel_traits", "backward": "Flash_bwd_kernel_traits"}
_PARAMS = {"forward": "Flash_fwd_params", "backward": "Flash_bwd_params"}
_LAUNCHERS = {"forward": "flash_fwd_launch_template.h", "backward": "flash_bwd_launch_template.h"}

# All that a recipe knows: the text must not depend on what is built, or its objects could not be shared.
_CODES = ("80", "90", "100", "120")


def variant_headers(
    kind: str, folder: str, left_out: Mapping[Architecture, frozenset[Variant]]
) -> tuple[GeneratedFile, ...]:
    """Return the headers that leave variants of a kind out: for each architecture, and for the host.

    The first is the one to include. The host's raises where a variant is launched after all.
    """
    each = {code.digits: found for code, found in left_out.items()}
    shared = in_common(left_out.values())
    files = [_variant_file(kind, folder, f"sm{digits}", found, "{}") for digits, found in each.items()]
    message = "no GPU that runs this wheel's machine code was known to launch this kernel"
    raising = f'{{ throw std::runtime_error("{message}; please report it to attnforge"); }}'
    return (
        GeneratedFile(f"{folder}/{header_name(kind)}", _choice(kind)),
        _variant_file(kind, folder, "host", shared, raising),
        *files,
    )


def header_name(kind: str) -> str:
    """Return the name of the header that units of a kind include first."""
    return f"attnforge_{kind}.h"


FIXED = "ATTNFORGE_FIXED_"
"""The beginning of the macro that says of a feature that a header before this one has chosen a branch of its switch."""


def _choice(kind: str) -> str:
    # softcap_or_dropout.h: upstream's launchers instantiate kernels with softcap also for calls with dropout, from the
    # traits of those. Its host code refuses such calls ("Softcapping does not support dropout for now", four times in
    # flash_api.cpp of 2.6.3, 2.7.2, 2.7.3, 2.7.4, 2.8.3 and their post releases). Where the traits are also those of
    # calls without dropout, the kernels stay: others launch them. A launcher without Is_dropout, that of split-KV
    # kernels, sees the name that the header declares.
    lines = [
        "// Made by attnforge.",
        "#pragma once",
        cxx("flash_attn/cxx/softcap_or_dropout.h").rstrip(),
        f'#include "{_LAUNCHERS[kind]}"',
    ]
    lines += ["#if !defined(__CUDA_ARCH__)", f'#include "attnforge_{kind}_host.h"']
    for digits in _CODES:
        lines += [f"#elif __CUDA_ARCH__ == {digits}0", f'#include "attnforge_{kind}_sm{digits}.h"']
    return "\n".join([*lines, "#endif", ""])


def _variant_file(kind: str, folder: str, where: str, found: Collection[Variant], body: str) -> GeneratedFile:
    ordered = sorted(
        (variant for variant in found if variant.kind == kind),
        key=lambda variant: (variant.head_dim, variant.traits, variant.dropout, variant.causal),
    )
    functions = [_specialization(variant, dtype, body) for variant in ordered for dtype in ("half_t", "bfloat16_t")]
    what = (
        f"kernels that no GPU launches which runs code of {where}" if where != "host" else "kernels that are in no code"
    )
    text = cxx("flash_attn/cxx/specialized.h", what=what, launcher=_LAUNCHERS[kind], functions="\n".join(functions))
    return GeneratedFile(f"{folder}/attnforge_{kind}_{where}.h", text)


def _specialization(variant: Variant, dtype: str, body: str) -> str:
    traits = f"{_TRAITS[variant.kind]}<{variant.head_dim}, {variant.traits}, cutlass::{dtype}>"
    flags = f"{str(variant.dropout).lower()}, {str(variant.causal).lower()}"
    name = f"{_FUNCTIONS[variant.kind]}<{traits}, {flags}>"
    return f"template<> inline void {name}({_PARAMS[variant.kind]} &, cudaStream_t) {body}"


def lean(
    folder: str, layout: Layout | None, left_out: Mapping[Architecture, frozenset[Variant]], features: Collection[str]
) -> Pass:
    """Return the pass that compiles kernels against the neutral headers, without those that nothing launches.

    ``folder`` is where the headers go; without a ``layout`` PyTorch's own are used. ``features`` are those that are
    kept. A full specialization is not known to the unit of split-KV kernels, which has one launcher for all GPUs.
    """
    both = {"softcap", "dropout"} <= set(features)

    def change(unit: Unit) -> Unit:
        kind = unit.kernel.split("-")[0]
        if unit.language is not Language.CUDA or unit.empty or not kind:
            return unit
        argv, without = unit.argv, unit.left_out
        if layout is not None:
            argv = (argv[0], f"-I{folder}", *_own_includes(argv[1:], unit))
        varied = any(variant.kind == kind for found in left_out.values() for variant in found)
        if kind in _FUNCTIONS and (varied or both):
            argv = (*argv, "-include", f"{folder}/{header_name(kind)}")
            without = patterns[kind]
        if argv == unit.argv:
            return unit
        ignores = ("CPATH",) if layout is not None else ()
        return replace(unit, argv=argv, ignores=ignores, left_out=without, fallback=(unit,))

    patterns = {
        kind: tuple((code.sm, found) for code, some in left_out.items() if (found := symbol_pattern(kind, some)))
        for kind in _FUNCTIONS
    }
    files = [file for kind in _FUNCTIONS for file in variant_headers(kind, folder, left_out)]
    if layout is not None:
        files += neutral_headers(folder, layout)

    def apply(graph: CompileGraph) -> CompileGraph:
        changed = graph.map(change)
        return changed.with_files(*files) if changed != graph else graph

    return apply


def _own_includes(argv: Sequence[str], unit: Unit) -> tuple[str, ...]:
    """Return an nvcc call without the include folders outside of upstream's source."""
    source = unit.sources[0]
    root = source.rpartition("/csrc/")[0] or str(PurePosixPath(source).parent)
    kept: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        option = next((name for name in ("-isystem", "-I") if word.startswith(name)), "")
        if not option:
            kept.append(word)
            continue
        path = word[len(option) :] or (rest.pop(0) if rest else "")
        if path == root or path.startswith(root + "/"):
            kept.append(f"{option}{path}" if option == "-I" else f"-isystem={path}")
    return tuple(kept)
