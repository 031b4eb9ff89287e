"""FlashAttention 2: headers with which cicc compiles a part of a unit's kernels.

Upstream's launchers instantiate their kernels in nested switches: ``SOFTCAP_SWITCH(condition, Is_softcap, body)`` and
others, macros of static_switch.h. Upstream's own way to drop a feature defines such a macro so that it takes only one
branch. The headers here do the same, for either branch, where cicc compiles device code: the host's code, which
launches, is upstream's, unchanged. Kernels that no switch tells apart are in each part, and in the PTX once.

With the index kernels call functions without content in place of those that compute.

Source: static_switch.h, flash_fwd_launch_template.h and flash_bwd_launch_template.h of 2.8.3.post2. Where another
version has them in another way, such a part does not compile or is not whole, and the unit is compiled at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnforge.model.graph import CompileGraph, GeneratedFile, InParts, Language, Pass, Unit
from attnforge.model.parts import Parted, features_of
from attnforge.recipes.cxx import cxx
from attnforge.recipes.flash_attn.kernels import FIXED

_NOTHING, _NO_COMBINE, _NO_DOT = "attnforge_nothing", "attnforge_no_combine", "attnforge_no_dot"

# What kernels call, by the headers that define it.
_FORWARD = (
    ("flash_fwd_kernel.h",),
    {
        "compute_attn": _NOTHING,
        "compute_attn_splitkv": _NOTHING,
        "combine_attn_seqk_parallel": _NO_COMBINE,
    },
)
_BACKWARD = (
    ("flash_bwd_preprocess_kernel.h", "flash_bwd_kernel.h"),
    {
        "compute_dq_dk_dv": _NOTHING,
        "compute_dq_dk_dv_seqk_parallel": _NOTHING,
        "compute_dot_do_o": _NO_DOT,
        "clear_dKVaccum": _NOTHING,
        "convert_dQ": _NOTHING,
        "convert_dKV": _NOTHING,
    },
)
_KINDS = {"forward": _FORWARD, "split": _FORWARD, "backward": _BACKWARD}


def in_parts(folder: str, parted: Sequence[Parted]) -> Pass:
    """Return the pass that has cicc compile units in parts; their headers go into ``folder``.

    A unit whose parts do not compile is compiled at once.
    """
    by_unit = {one.unit: one.parts for one in parted}
    files = {
        path: GeneratedFile(path, text)
        for one in parted
        for path, text in (
            (_index_path(folder, one.unit), index_header(_kind(one.unit))),
            *((_part_path(folder, part), part_header(part)) for part in one.parts),
        )
    }

    def change(unit: Unit) -> Unit:
        parts = by_unit.get(unit.kernel)
        if parts is None or unit.empty or unit.language is not Language.CUDA:
            return unit
        headers = tuple(_part_path(folder, part) for part in parts)
        return replace(unit, parts=InParts(_index_path(folder, unit.kernel), headers), fallback=(unit,))

    def apply(graph: CompileGraph) -> CompileGraph:
        changed = replace(graph, units=tuple(map(change, graph.units)))
        return changed.with_files(*files.values()) if changed != graph else graph

    return apply


def part_header(part: str) -> str:
    """Return the header with which cicc compiles only the kernels of a part."""
    switches = [
        cxx("flash_attn/cxx/switch.h", fixed=FIXED, name=name.upper(), value=str(there).lower())
        for name, there in sorted(features_of(part).items())
    ]
    return cxx("flash_attn/cxx/part.h", switches="".join(switches).rstrip("\n"))


def index_header(kind: str) -> str:
    """Return the header with which cicc writes the kernels of a kind without their bodies."""
    includes, calls = _KINDS[kind]
    return cxx(
        "flash_attn/cxx/index.h",
        includes="\n".join(f'#include "{name}"' for name in includes),
        renames="\n".join(f"#define {name} {instead}" for name, instead in calls.items()),
    )


def _kind(kernel: str) -> str:
    return kernel.partition("-")[0]


def _index_path(folder: str, kernel: str) -> str:
    return f"{folder}/index_{_kind(kernel)}.h"


def _part_path(folder: str, part: str) -> str:
    return f"{folder}/{part.replace('+', '_')}.h"
