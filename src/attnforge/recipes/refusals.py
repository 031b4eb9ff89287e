"""The errors of calls for left-out kernels: C++ for headers that upstream's host code includes first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attnforge.model.graph import CompileGraph, GeneratedFile, Pass, Unit
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.recipes.cxx import cxx


def refusals(plan: BuildPlan, recipe: Recipe, cpp_dtypes: dict[str, str], declared: str) -> str:
    """Return the C++ text of ``RAISE`` for a plan; ``cpp_dtypes`` are upstream's types by the recipe's dtypes.

    ``declared`` is C++ that declares these types: so the text needs nothing before it.
    A call for what is not there raises std::runtime_error, and names the command that builds it.
    """
    selection = plan.selection
    names = "".join(f'std::is_same_v<T, {cpp}> ? "{dtype}" : ' for dtype, cpp in cpp_dtypes.items())
    return cxx(
        "refusals.h",
        declared=declared,
        package=plan.package,
        version=plan.version,
        dtype_name=f'{names}"this dtype"',
        head_dims=_any(f"HeadDim == {head_dim}" for head_dim in selection.head_dims),
        dtypes=_any(f"std::is_same_v<T, {cpp_dtypes[dtype]}>" for dtype in selection.dtypes),
        kept_dims=",".join(map(str, selection.head_dims)),
        kept_dtypes=",".join(selection.dtypes),
        base=_command(plan),
        rest=f' + "{_without(selection.without)}"' if selection.without else "",
        guards="\n".join(_guard(plan, recipe, name) for name in selection.without if recipe.features[name].guard),
    )


def include_header(unit_name: str, path: str, text: str) -> Pass:
    """Return the pass that compiles one unit with a file of ours included before it."""

    def include(unit: Unit) -> Unit:
        return replace(unit, argv=(*unit.argv, "-include", path)) if unit.name == unit_name else unit

    def apply(graph: CompileGraph) -> CompileGraph:
        if not any(unit.name == unit_name for unit in graph.units):
            return graph
        return graph.map(include).with_files(GeneratedFile(path, text))

    return apply


def rebuild_command(plan: BuildPlan, restored: str) -> str:
    """Return the command that builds the wheel with one feature more."""
    rest = [name for name in plan.selection.without if name != restored]
    dims = ",".join(map(str, plan.selection.head_dims))
    dtypes = ",".join(plan.selection.dtypes)
    return f"{_command(plan)} --head-dims {dims} --dtypes {dtypes}" + (_without(rest) if rest else "")


def what_and_command(plan: BuildPlan, recipe: Recipe, name: str) -> tuple[str, str]:
    """Return two C++ strings for a feature that was left out: what it is, and the command that builds it."""
    feature = recipe.features[name]
    told = f"{name} ({feature.summary}; asked for by {feature.asks})"
    return _quoted(told), _quoted(rebuild_command(plan, name))


def _any(conditions: Iterable[str]) -> str:
    return " || ".join(conditions) or "false"


def _command(plan: BuildPlan) -> str:
    target = plan.target
    gpus = ",".join(architecture.dotted for architecture in target.architectures)
    # Of a universal wheel: the pair that this module is for, so that the text is the same in whatever wheel it is.
    form = "--universal " if plan.is_universal else ""
    of = f"{form}--python {target.python} --torch {target.torch} --cuda {target.cuda}"
    if plan.installed and not plan.installed.official:
        of = "--torch installed"  # no index has it
    return f"attnforge build {plan.package}=={plan.version} --gpu {gpus} {of}"


def _without(names: Iterable[str]) -> str:
    return f" --without {','.join(names)}"


def _guard(plan: BuildPlan, recipe: Recipe, name: str) -> str:
    what, command = what_and_command(plan, recipe, name)
    return f"    if ({recipe.features[name].guard}) left_out({what}, {command});"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
