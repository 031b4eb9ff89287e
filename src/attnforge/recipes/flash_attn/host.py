"""FlashAttention 2: the part of PyTorch's headers that flash_api.cpp uses.

flash_api.cpp includes torch/python.h and torch/nn/functional.h, and with them all of PyTorch's C++ interface: most of
what its compile takes is reading it. It uses tensors, a few operators, pad and the Python bindings. Headers of ours in
front of PyTorch's include just these, from the real PyTorch. Measured with 2.11.0: the same 256 functions in the
object, 27 s of CPU instead of 37 (docs/performance.md). A PyTorch whose headers lie in another way is compiled whole:
the unit as it was is the fallback.
"""

from __future__ import annotations

from dataclasses import replace

from attnforge.model.graph import CompileGraph, GeneratedFile, Pass, Unit

_PYTHON = """\
// Made by attnforge. Stands in front of PyTorch's header of that name and includes what flash_api.cpp uses of it.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/reshape.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/types.h>
"""

_FUNCTIONAL = """\
// Made by attnforge. Stands in front of PyTorch's header of that name and includes what flash_api.cpp uses of it.
#pragma once
#include <ATen/TensorIndexing.h>
#include <ATen/ops/_pad_enum.h>
#include <torch/nn/functional/padding.h>
namespace torch { namespace indexing { using namespace at::indexing; } }
"""

# torch/types.h of PyTorch includes all operators and the registration of new ones.
_TYPES = """\
// Made by attnforge. Stands in front of PyTorch's header of that name, without all operators.
#pragma once
#include <ATen/core/Tensor.h>
#include <optional>
#include <torch/csrc/autograd/generated/variable_factories.h>
#include <torch/csrc/autograd/variable.h>
namespace torch {
using namespace at;
using std::nullopt;
using std::optional;
using Dtype = at::ScalarType;
constexpr auto kUInt8 = at::kByte;
constexpr auto kInt8 = at::kChar;
constexpr auto kInt16 = at::kShort;
constexpr auto kInt32 = at::kInt;
constexpr auto kInt64 = at::kLong;
constexpr auto kFloat16 = at::kHalf;
constexpr auto kFloat32 = at::kFloat;
constexpr auto kFloat64 = at::kDouble;
}
"""


def lean_host(unit_name: str, folder: str) -> Pass:
    """Return the pass that compiles one host unit with fewer of PyTorch's headers, which go into ``folder``."""

    def change(unit: Unit) -> Unit:
        if unit.name != unit_name or unit.empty:
            return unit
        argv = (unit.argv[0], f"-I{folder}", "-DAT_PER_OPERATOR_HEADERS", *unit.argv[1:])
        return replace(unit, argv=argv, fallback=(unit,))

    files = (
        GeneratedFile(f"{folder}/torch/python.h", _PYTHON),
        GeneratedFile(f"{folder}/torch/types.h", _TYPES),
        GeneratedFile(f"{folder}/torch/nn/functional.h", _FUNCTIONAL),
    )

    def apply(graph: CompileGraph) -> CompileGraph:
        changed = graph.map(change)
        return changed.with_files(*files) if changed != graph else graph

    return apply
