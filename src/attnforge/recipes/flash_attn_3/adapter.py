"""FlashAttention 3: the header between its host code and its kernels.

Upstream's own settings leave kernels out and have its host code raise for most of them. Where it does not, a header of
ours, included before that host code, renames its calls of kernels to functions that check first:

- bf16 has no setting of upstream's: its units become empty objects here, and a call for it raises;
- without the kernels whose values have another head dimension than their queries (hdimdiff64, hdimdiff192), upstream
  takes a kernel of equal dimensions, whose output lacks the columns beyond, or whose tiles are not those that the host
  code counted with: such a call raises.

A head dimension that was left out is computed by the next larger kernel, as upstream does (round_up_headdim).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.recipes.cxx import cxx
from attnforge.recipes.refusals import include_header, refusals

HEADER = "attnforge_dispatch.h"

# flash_api.cpp is what upstream builds for PyTorch below 2.9.
HOST_UNITS = ("flash_api_stable.cpp", "flash_api.cpp")

_CPP_DTYPES = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t", "fp8": "cutlass::float_e4m3_t"}

_DTYPES = "#include <cutlass/numeric_types.h>"


class FlashAttention3:
    """The adapter of FlashAttention 3."""

    crossing = ""

    def questions(self) -> Mapping[str, str]:
        """Ask nothing: kernels include nothing of PyTorch."""
        return {}

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str, answers: Collection[str]) -> Sequence[Pass]:
        """Return the passes: the header before the host code, where something is left out."""
        if recipe.kernels is None or not plan.selection.is_subset:
            return ()
        text = header(plan, recipe)
        return tuple(include_header(name, f"{folder}/{HEADER}", text) for name in HOST_UNITS)


ADAPTER = FlashAttention3()


def header(plan: BuildPlan, recipe: Recipe) -> str:
    """Return the header for a plan."""
    # It includes flash.h, which declares what is renamed (run_mha_fwd_, run_mha_bwd_).
    return cxx("flash_attn_3/cxx/dispatch.h", refusals=refusals(plan, recipe, _CPP_DTYPES, _DTYPES))
