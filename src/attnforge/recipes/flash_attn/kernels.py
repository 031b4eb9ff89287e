"""FlashAttention 2: units of kernels that need neither PyTorch nor Python, and hold no kernel that nothing launches.

Kernels take three things from PyTorch: the state of its Philox generator, the function that unpacks it, and an error
macro. Headers of ours stand in for these (`-I` first), so that one object serves every PyTorch and Python with that
layout of the state. The layout is asked of the real PyTorch before anything is compiled, and held again by a
static_assert where flash_api.cpp meets it. The error macro calls a function of ours, which flash_api.cpp's unit has:
the symbol behind C10_CUDA_CHECK changes between PyTorch's releases.

What a unit was before is kept as its fallback.

In a universal wheel the kernels lie in a library that knows no PyTorch. There the error macro's function is in a unit
of ours (``LIBRARY``). It hands an error to the function that flash_api.cpp's unit has given it, so that a user sees
the exception that PyTorch has for it; without one it throws std::runtime_error. That unit also has one function whose
name is made of sizes and offsets of what crosses the boundary, as kernels see it. flash_api.cpp's unit refers to it by
what it sees: where they differ, nothing has that name and the module can't be made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Pass, Unit
from attnforge.model.target import Architecture
from attnforge.recipes.flash_attn.variants import Variant, in_common, symbol_pattern

CHECK = "void cuda_check(cudaError_t error, const char *file, const char *function, unsigned line)"
"""The function that the neutral error macro calls."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a PyTorch lays out at::PhiloxCudaState: ``intragraph`` is the type of offset_intragraph_."""

    name: str
    intragraph: str
    captured_at: int
    size: int


# c10's and ATen's history: PyTorch widened offset_intragraph_ from 32 to 64 bits. Both are asked for, none is assumed.
LAYOUTS = (Layout("philox-64", "uint64_t", 24, 32), Layout("philox-32", "uint32_t", 20, 24))

# Each of the texts below includes what it uses: which of them stand together in a file, and what comes before or after
# them there, depends on what is built.
_ASSERTS = """\
#include <cstddef>
#include <cstdint>
#include <ATen/cuda/PhiloxCudaState.h>
static_assert(sizeof(at::PhiloxCudaState) == {size} && alignof(at::PhiloxCudaState) == 8
              && offsetof(at::PhiloxCudaState, seed_) == 0 && offsetof(at::PhiloxCudaState, offset_) == 8
              && offsetof(at::PhiloxCudaState, offset_intragraph_) == 16
              && sizeof(at::PhiloxCudaState::offset_intragraph_) == sizeof({intragraph})
              && offsetof(at::PhiloxCudaState, captured_) == {captured_at}
              && sizeof(at::PhiloxCudaState::captured_) == 1 && sizeof(at::PhiloxCudaState::Payload) == 8,
              "PyTorch lays out at::PhiloxCudaState in another way than the kernels were compiled for");
"""

_ERRORS = f"""\
// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
namespace attnforge {{
{CHECK};
}}
#define C10_CUDA_CHECK(EXPR) ::attnforge::cuda_check((EXPR), __FILE__, __func__, __LINE__)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() C10_CUDA_CHECK(cudaGetLastError())
"""

_STATE = """\
// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <cstdint>
namespace at {{
struct PhiloxCudaState {{
    union Payload {{
        uint64_t val;
        int64_t *ptr;
    }};
    Payload seed_{{}};
    Payload offset_{{}};
    {intragraph} offset_intragraph_ = 0;
    bool captured_ = false;
}};
}}
"""

_UNPACK = """\
// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <cstdint>
#include <cuda_runtime.h>
#include <tuple>
namespace at::cuda::philox {
// While a CUDA graph is captured, seed and offset are not known yet: then the state points to them.
__host__ __device__ __forceinline__ std::tuple<uint64_t, uint64_t> unpack(at::PhiloxCudaState state) {
    if (state.captured_) {
        return std::make_tuple(static_cast<uint64_t>(*state.seed_.ptr),
                               static_cast<uint64_t>(*(state.offset_.ptr) + state.offset_intragraph_));
    }
    return std::make_tuple(state.seed_.val, state.offset_.val);
}
}
"""

# FlashAttention 2.6 asks PyTorch for the compute capability, and gets unpack() and the error macro by way of other
# headers.
_CONTEXT = """\
// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime.h>
namespace at::cuda {
// Kept, as PyTorch does: the driver takes milliseconds to tell.
inline cudaDeviceProp *getCurrentDeviceProperties() {
    thread_local int known = -1;
    thread_local cudaDeviceProp properties;
    int device = 0;
    C10_CUDA_CHECK(cudaGetDevice(&device));
    if (device != known) {
        C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
        known = device;
    }
    return &properties;
}
}
"""

_GRAPHS = """\
// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/detail/UnpackRaw.cuh>
"""

_CHECK = """\
#include <cstdint>
#include <cuda_runtime.h>
#include <c10/cuda/CUDAException.h>

namespace attnforge {{

{check} {{
    c10::cuda::c10_cuda_check_implementation(static_cast<int32_t>(error), file, function, line, true);
}}

}}  // namespace attnforge

{asserts}"""


LIBRARY = "attnforge_kernels.cu"
"""The name of our unit in the kernels library of a universal wheel."""

_BOUNDARY = """\
#include <cstddef>
#include <cuda_runtime.h>
#include "flash.h"
namespace attnforge {
using Reporter = void (*)(cudaError_t, const char *, const char *, unsigned);
void report_to(Reporter reporter);
template<std::size_t...> void boundary();
namespace layout {
#ifdef FLASH_NAMESPACE
using namespace FLASH_NAMESPACE;
#else
using ::Flash_fwd_params;
using ::Flash_bwd_params;
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
#define ATTNFORGE_BOUNDARY \\
    boundary<sizeof(layout::Flash_fwd_params), alignof(layout::Flash_fwd_params), \\
             offsetof(layout::Flash_fwd_params, p_dropout), offsetof(layout::Flash_fwd_params, philox_args), \\
             offsetof(layout::Flash_fwd_params, num_splits), sizeof(layout::Flash_bwd_params), \\
             offsetof(layout::Flash_bwd_params, deterministic)>
}  // namespace layout
"""

_LIBRARY = """\
// Made by attnforge. Lies in the kernels library of a universal wheel, which knows no PyTorch.
#include <cuda_runtime.h>
#include <stdexcept>
#include <string>
#include <c10/cuda/CUDAException.h>

{boundary}
static Reporter reporter = nullptr;

void report_to(Reporter given) {{ reporter = given; }}

{check} {{
    if (error == cudaSuccess) return;
    // PyTorch clears the last error of its own CUDA runtime. This library has another one, whose next check must not
    // find this error again.
    static_cast<void>(cudaGetLastError());
    if (reporter != nullptr) reporter(error, file, function, line);
    throw std::runtime_error(std::string("CUDA error: ") + cudaGetErrorString(error) + " (" + file + ":" +
                             std::to_string(line) + ", " + function + ")");
}}

template<std::size_t...> void boundary() {{}}
template void ATTNFORGE_BOUNDARY();
#pragma GCC diagnostic pop

}}  // namespace attnforge
"""

_HOST = """\
#include <cstdint>
#include <cuda_runtime.h>
#include <c10/cuda/CUDAException.h>

{boundary}
static void torch_error(cudaError_t error, const char *file, const char *function, unsigned line) {{
    c10::cuda::c10_cuda_check_implementation(static_cast<int32_t>(error), file, function, line, true);
}}

[[gnu::used]] static const bool joined = (report_to(torch_error), ATTNFORGE_BOUNDARY(), true);
#pragma GCC diagnostic pop

}}  // namespace attnforge

{asserts}"""


def questions() -> dict[str, str]:
    """Return, by the name of each layout, C++ text that compiles where the PyTorch has it."""
    return {layout.name: asserts(layout) for layout in LAYOUTS}


def asserts(layout: Layout) -> str:
    """Return the C++ that holds a PyTorch to a layout."""
    return _ASSERTS.format(size=layout.size, intragraph=layout.intragraph, captured_at=layout.captured_at)


def check_function(layout: Layout) -> str:
    """Return the C++ that flash_api.cpp's unit gets, where the real PyTorch is."""
    return _CHECK.format(check=CHECK, asserts=asserts(layout))


def joining_function(layout: Layout) -> str:
    """Return the C++ that flash_api.cpp's unit gets in a universal wheel, where the kernels are in a library."""
    return _HOST.format(boundary=_BOUNDARY, asserts=asserts(layout))


def library_unit(folder: str) -> Pass:
    """Return the pass that adds our unit of the kernels library; it comes after ``lean``, of the same ``folder``.

    It is compiled as the first kernel's unit is. Upstream's link step does not know it.
    """
    path = f"{folder}/{LIBRARY}"

    def apply(graph: CompileGraph) -> CompileGraph:
        like = next((unit for unit in graph.units if _is_lean(unit, folder)), None)
        if like is None:
            return graph
        output = str(PurePosixPath(folder) / f"{LIBRARY}.o")
        renamed = {like.sources[0]: path, like.output: output, like.depfile: f"{output}.d"}
        argv = tuple(renamed.get(word, word) if word else word for word in _without_headers(like.argv))
        unit = Unit(output, (path,), argv, like.cwd, Language.CUDA, depfile=f"{output}.d", ignores=like.ignores)
        text = _LIBRARY.format(boundary=_BOUNDARY, check=CHECK)
        return replace(graph, units=(*graph.units, unit)).with_files(GeneratedFile(path, text))

    return apply


def _is_lean(unit: Unit, folder: str) -> bool:
    return f"-I{folder}" in unit.argv and unit.language is Language.CUDA and not unit.empty


def _without_headers(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command without the files that it includes first."""
    return tuple(word for before, word in zip(("", *argv), argv, strict=False) if "-include" not in (before, word))


def neutral_headers(folder: str, layout: Layout) -> tuple[GeneratedFile, ...]:
    """Return the headers that stand for PyTorch's, in ``folder``."""
    return (
        GeneratedFile(f"{folder}/c10/cuda/CUDAException.h", _ERRORS),
        GeneratedFile(f"{folder}/ATen/cuda/CUDAGeneratorImpl.h", _STATE.format(intragraph=layout.intragraph)),
        GeneratedFile(f"{folder}/ATen/cuda/detail/UnpackRaw.cuh", _UNPACK),
        GeneratedFile(f"{folder}/ATen/cuda/CUDAContext.h", _CONTEXT),
        GeneratedFile(f"{folder}/ATen/cuda/CUDAGraphsUtils.cuh", _GRAPHS),
    )


_FUNCTIONS = {"forward": "run_flash_fwd", "backward": "run_flash_bwd"}
_TRAITS = {"forward": "Flash_fwd_kernel_traits", "backward": "Flash_bwd_kernel_traits"}
_PARAMS = {"forward": "Flash_fwd_params", "backward": "Flash_bwd_params"}
_LAUNCHERS = {"forward": "flash_fwd_launch_template.h", "backward": "flash_bwd_launch_template.h"}

# All that a recipe knows: the text must not depend on what is built, or its objects could not be shared.
_CODES = ("80", "90", "100", "120")

_SPECIALIZED = """\
// Made by attnforge: {what}.
#pragma once
#include <stdexcept>
#include "{launcher}"
#ifdef FLASH_NAMESPACE
namespace FLASH_NAMESPACE {{
#endif
{functions}
#ifdef FLASH_NAMESPACE
}}
#endif
"""


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

# Upstream's launchers instantiate kernels with softcap for calls with dropout, too, from the traits of those. Its host
# code refuses such calls ("Softcapping does not support dropout for now", four times in flash_api.cpp of 2.6.3, 2.7.2,
# 2.7.3, 2.7.4, 2.8.3 and their post releases). Where the traits are those of calls without dropout as well, the kernels
# stay: then others launch them. A launcher without Is_dropout, that of split-KV kernels, sees the name below.
_WITHOUT_BOTH = f"""\
#include <stdexcept>
#include "static_switch.h"
#if !defined(FLASHATTENTION_DISABLE_SOFTCAP) && !defined({FIXED}SOFTCAP)
enum : bool {{ Is_dropout = false }};
#undef SOFTCAP_SWITCH
#define SOFTCAP_SWITCH(COND, CONST_NAME, ...) \\
    [&] {{ \\
        if constexpr (static_cast<bool>(Is_dropout)) {{ \\
            if (COND) throw std::runtime_error("there is no kernel with both softcap and dropout"); \\
            constexpr static bool CONST_NAME = false; \\
            return __VA_ARGS__(); \\
        }} else if (COND) {{ \\
            constexpr static bool CONST_NAME = true; \\
            return __VA_ARGS__(); \\
        }} else {{ \\
            constexpr static bool CONST_NAME = false; \\
            return __VA_ARGS__(); \\
        }} \\
    }}()
#endif
"""


def _choice(kind: str) -> str:
    lines = ["// Made by attnforge.", "#pragma once", _WITHOUT_BOTH.rstrip(), f'#include "{_LAUNCHERS[kind]}"']
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
    text = _SPECIALIZED.format(what=what, launcher=_LAUNCHERS[kind], functions="\n".join(functions))
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
    """Return an nvcc call without the include folders that lie outside of upstream's source."""
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
