"""FlashAttention 2: the header that stands between its host code and its kernels.

Upstream's flash_api.cpp calls ``run_mha_fwd_<T, head_dim, causal>(params, stream)`` and two more such templates, which
the units of kernels define. Here flash_api.cpp is compiled, unchanged, with a header of ours included before it. The
header renames these calls to functions of its own, which look at ``params`` and then call the kernel, raise, or take
the kernel that is there:

- a call that asks for a feature that was left out raises and names the option that builds it. Upstream's macros alone
  would ignore the argument (seen: dropout_p=0.1 gives the result without dropout);
- a head dimension or dtype that was left out raises the same way, so no unit of it has to exist;
- without split-KV kernels a call that upstream's heuristic sends there (few heads and batches) is computed by the plain
  kernels, which give the same result; what only split-KV kernels can do (paged cache, appending, indexing) raises.

Units of kernels are compiled against neutral headers and without variants that nothing launches: see kernels.py and
variants.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from attnforge.model.graph import CompileGraph, GeneratedFile, Pass, Unit
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.recipes.flash_attn import kernels
from attnforge.recipes.flash_attn.host import lean_host
from attnforge.recipes.flash_attn.variants import left_out

HEADER = "attnforge_dispatch.h"

_ENTRIES = {"forward": "run_mha_fwd_", "split": "run_mha_fwd_splitkv_dispatch", "backward": "run_mha_bwd_"}
_PARAMS = {"forward": "Flash_fwd_params", "split": "Flash_fwd_params", "backward": "Flash_bwd_params"}
_CPP_DTYPES = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t"}

_TEMPLATE = """\
// Made by attnforge for the plan {digest}. Included before flash_api.cpp.
#pragma once
#include <cuda_runtime.h>
#include <stdexcept>
#include <string>
#include <type_traits>
#include "flash.h"

namespace cutlass {{ struct half_t; struct bfloat16_t; }}

namespace attnforge {{

[[noreturn]] inline void left_out(const std::string &what, const std::string &command) {{
    throw std::runtime_error("this wheel of {package} {version} was built without " + what +
                             ". A wheel with it: " + command);
}}

template<typename T> constexpr const char *dtype_name() {{
    return std::is_same_v<T, cutlass::half_t> ? "fp16" : "bf16";
}}

template<typename T, int HeadDim> constexpr bool has_kernel() {{
    return ({head_dims}) && ({dtypes});
}}

template<typename T, int HeadDim> [[noreturn]] void no_kernel() {{
    left_out(std::string("kernels for head dimension ") + std::to_string(HeadDim) + " in " + dtype_name<T>(),
             std::string("{base} --head-dims {kept_dims}") + (({head_dims}) ? "" : "," + std::to_string(HeadDim)) +
             " --dtypes {kept_dtypes}" + (({dtypes}) ? "" : std::string(",") + dtype_name<T>()){rest});
}}

template<typename Params> void guard(const Params &params) {{
    (void)params;
{guards}
}}

}}  // namespace attnforge

#ifdef FLASH_NAMESPACE
namespace FLASH_NAMESPACE {{
#endif

{functions}

#ifdef FLASH_NAMESPACE
}}
#endif

{renames}
"""

_CALL = """\
template<typename T, int HeadDim, bool Is_causal>
void attnforge_{kind}({params} &params, cudaStream_t stream) {{
    attnforge::guard(params);
    if constexpr (attnforge::has_kernel<T, HeadDim>()) {{
        {entry}<T, HeadDim, Is_causal>(params, stream);
    }} else {{
        attnforge::no_kernel<T, HeadDim>();
    }}
}}
"""

_RAISE = """\
template<typename T, int HeadDim, bool Is_causal>
void attnforge_{kind}({params} &, cudaStream_t) {{
    attnforge::left_out({what}, {command});
}}
"""

# Appending to the cache, paging and cache_batch_idx exist in split-KV kernels alone (flash_api.cpp: "Only split kernel
# supports appending to KV cache, or indexing to the cache with cache_batch_idx, or paged KV cache").
_PLAIN_FOR_SPLIT = """\
template<typename T, int HeadDim, bool Is_causal>
void attnforge_split(Flash_fwd_params &params, cudaStream_t stream) {{
    if (params.knew_ptr != nullptr || params.block_table != nullptr || params.cache_batch_idx != nullptr) {{
        attnforge::left_out({what}, {command});
    }}
    params.num_splits = 1;
    attnforge_forward<T, HeadDim, Is_causal>(params, stream);
}}
"""


class FlashAttention2:
    """The adapter of FlashAttention 2."""

    def questions(self) -> Mapping[str, str]:
        """Ask how the PyTorch lays out what kernels are given of it."""
        return kernels.questions()

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str, answers: Collection[str]) -> Sequence[Pass]:
        """Return the passes: the header before flash_api.cpp, and what makes both kinds of units lean."""
        if recipe.kernels is None or not plan.selection.kept:
            return ()
        layout = next((layout for layout in kernels.LAYOUTS if layout.name in answers), None)
        text = (header(plan, recipe) if plan.selection.is_subset else "") + (
            kernels.check_function(layout) if layout else ""
        )
        including = [include_header(recipe.kernels.dispatch, f"{folder}/{HEADER}", text)] if text else []
        return (
            *including,
            lean_host(recipe.kernels.dispatch, f"{folder}/host"),
            kernels.lean(f"{folder}/lean", layout, left_out(plan.target.architectures)),
        )


ADAPTER = FlashAttention2()


def include_header(unit_name: str, path: str, text: str) -> Pass:
    """Return the pass that compiles one unit with a file of ours included before it."""

    def include(unit: Unit) -> Unit:
        return replace(unit, argv=(*unit.argv, "-include", path)) if unit.name == unit_name else unit

    def apply(graph: CompileGraph) -> CompileGraph:
        if not any(unit.name == unit_name for unit in graph.units):
            return graph
        return graph.map(include).with_files(GeneratedFile(path, text))

    return apply


def header(plan: BuildPlan, recipe: Recipe) -> str:
    """Return the header for a plan."""
    selection = plan.selection
    return _TEMPLATE.format(
        digest=plan.digest,
        package=plan.package,
        version=plan.version,
        head_dims=_any(f"HeadDim == {head_dim}" for head_dim in selection.head_dims),
        dtypes=_any(f"std::is_same_v<T, {_CPP_DTYPES[dtype]}>" for dtype in selection.dtypes),
        kept_dims=",".join(map(str, selection.head_dims)),
        kept_dtypes=",".join(selection.dtypes),
        base=_command(plan),
        rest=f' + "{_without(selection.without)}"' if selection.without else "",
        guards="\n".join(_guard(plan, recipe, name) for name in selection.without if recipe.features[name].guard),
        functions="\n".join(_function(plan, recipe, kind) for kind in _ENTRIES),
        renames="\n".join(f"#define {entry} attnforge_{kind}" for kind, entry in _ENTRIES.items()),
    )


def _any(conditions: Iterable[str]) -> str:
    return " || ".join(conditions) or "false"


def _command(plan: BuildPlan) -> str:
    target = plan.target
    gpus = ",".join(gpu.name.replace(" ", "-") for gpu in target.gpus)
    of = f"--python {target.python} --torch {target.torch} --cuda {target.cuda}"
    return f"attnforge build {plan.package}=={plan.version} --gpu {gpus} {of}"


def _without(names: Iterable[str]) -> str:
    return f" --without {','.join(names)}"


def rebuild_command(plan: BuildPlan, restored: str) -> str:
    """Return the command that builds the wheel with one feature more."""
    rest = [name for name in plan.selection.without if name != restored]
    dims = ",".join(map(str, plan.selection.head_dims))
    dtypes = ",".join(plan.selection.dtypes)
    return f"{_command(plan)} --head-dims {dims} --dtypes {dtypes}" + (_without(rest) if rest else "")


def _guard(plan: BuildPlan, recipe: Recipe, name: str) -> str:
    condition = recipe.features[name].guard
    return f"    if ({condition}) left_out({_what(recipe, name)}, {_quoted(rebuild_command(plan, name))});"


def _what(recipe: Recipe, name: str) -> str:
    feature = recipe.features[name]
    return _quoted(f"{name} ({feature.summary}; asked for by {feature.asks})")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _function(plan: BuildPlan, recipe: Recipe, kind: str) -> str:
    missing = next((name for name in plan.selection.without if kind in recipe.features[name].kinds), None)
    if missing is None:
        return _CALL.format(kind=kind, params=_PARAMS[kind], entry=_ENTRIES[kind])
    what, command = _what(recipe, missing), _quoted(rebuild_command(plan, missing))
    if kind == "split":
        return _PLAIN_FOR_SPLIT.format(what=what, command=command)
    return _RAISE.format(kind=kind, params=_PARAMS[kind], what=what, command=command)
