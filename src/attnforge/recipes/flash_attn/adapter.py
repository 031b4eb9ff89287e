"""FlashAttention 2: the header between its host code and its kernels.

Upstream's flash_api.cpp calls ``run_mha_fwd_<T, head_dim, causal>(params, stream)`` and two more such templates, which
the units of kernels define. Here flash_api.cpp is compiled, unchanged, with a header of ours included before it. The
header renames these calls to its own functions, which check ``params`` and then call the kernel, raise, or take
the kernel that is there:

- a call that asks for a feature that was left out raises and names the option that builds it. With upstream's
  macros only, a call would ignore the argument (seen: dropout_p=0.1 gives the result without dropout);
- a head dimension or dtype that was left out raises the same way, so no unit of it has to exist;
- without split-KV kernels a call that upstream's heuristic sends there (few heads and batches) is computed by the plain
  kernels, which give the same result; what only split-KV kernels can do (paged cache, appending, indexing) raises.

Units of kernels are compiled against neutral headers and without variants that nothing launches, large ones in parts:
see kernels.py, variants.py and parts.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.recipes.cxx import cxx
from attnforge.recipes.flash_attn import kernels, neutral
from attnforge.recipes.flash_attn.host import lean_host
from attnforge.recipes.flash_attn.parts import in_parts
from attnforge.recipes.flash_attn.variants import left_out
from attnforge.recipes.refusals import include_header, refusals, what_and_command

HEADER = "attnforge_dispatch.h"

_ENTRIES = {"forward": "run_mha_fwd_", "split": "run_mha_fwd_splitkv_dispatch", "backward": "run_mha_bwd_"}
_PARAMS = {"forward": "Flash_fwd_params", "split": "Flash_fwd_params", "backward": "Flash_bwd_params"}
_CPP_DTYPES = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t"}

_DTYPES = "namespace cutlass { struct half_t; struct bfloat16_t; }"

_START = """\
// Made by attnforge. Included before flash_api.cpp.
#pragma once
"""


class FlashAttention2:
    """The adapter of FlashAttention 2."""

    crossing = "the state of its random number generator"

    def questions(self) -> Mapping[str, str]:
        """Ask how the PyTorch lays out what kernels are given of it."""
        return neutral.questions()

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str, answers: Collection[str]) -> Sequence[Pass]:
        """Return the passes: the header before flash_api.cpp, and what makes both kinds of units lean."""
        if recipe.kernels is None or not plan.selection.kept:
            return ()
        layout = next((layout for layout in neutral.LAYOUTS if layout.name in answers), None)
        shared = layout is not None and plan.is_universal
        text = before_host(plan, recipe, layout)
        including = [include_header(recipe.kernels.dispatch, f"{folder}/{HEADER}", text)] if text else []
        return (
            *including,
            lean_host(recipe.kernels.dispatch, f"{folder}/host"),
            kernels.lean(f"{folder}/lean", layout, left_out(plan.target.architectures), plan.selection.features),
            *([neutral.library_unit(f"{folder}/lean")] if shared else []),
            *([in_parts(f"{folder}/parts", plan.parts)] if plan.parts else []),
        )


ADAPTER = FlashAttention2()


def before_host(plan: BuildPlan, recipe: Recipe, layout: neutral.Layout | None) -> str:
    """Return the text that flash_api.cpp's unit includes first, or "".

    What was left out has to raise, and kernels that know no PyTorch need the ``layout`` and a function that reports
    their errors. Each part includes what it uses, so that it also works without the others.
    """
    parts = [dispatching(plan, recipe)] if plan.selection.is_subset else []
    parts += [_meeting(layout, plan.is_universal)] if layout else []
    return "\n".join([_START, *parts]) if parts else ""


def _meeting(layout: neutral.Layout, shared: bool) -> str:
    """Return what flash_api.cpp's unit gets for kernels that know no PyTorch."""
    return neutral.joining_function(layout) if shared else neutral.check_function(layout)


def dispatching(plan: BuildPlan, recipe: Recipe) -> str:
    """Return the part between host code and kernels, for a plan."""
    return cxx(
        "flash_attn/cxx/dispatch.h",
        refusals=refusals(plan, recipe, _CPP_DTYPES, _DTYPES),
        functions="\n".join(_function(plan, recipe, kind) for kind in _ENTRIES),
        renames="\n".join(f"#define {entry} attnforge_{kind}" for kind, entry in _ENTRIES.items()),
    )


def _function(plan: BuildPlan, recipe: Recipe, kind: str) -> str:
    missing = next((name for name in plan.selection.without if kind in recipe.features[name].kinds), None)
    if missing is None:
        return cxx("flash_attn/cxx/call.h", kind=kind, params=_PARAMS[kind], entry=_ENTRIES[kind])
    what, command = what_and_command(plan, recipe, missing)
    if kind == "split":
        # Only split-KV kernels append to the cache, page it and index it (flash_api.cpp: "Only split kernel supports
        # appending to KV cache, or indexing to the cache with cache_batch_idx, or paged KV cache").
        return cxx("flash_attn/cxx/plain_for_split.h", what=what, command=command)
    return cxx("flash_attn/cxx/raise.h", kind=kind, params=_PARAMS[kind], what=what, command=command)
