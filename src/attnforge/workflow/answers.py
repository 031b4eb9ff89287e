"""What the PyTorch of a build answers to the questions of a recipe: texts that compile against it or do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attnforge import process
from attnforge.compile.graph.pipeline import standard_of
from attnforge.errors import BuildError
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.recipes.catalogue import find_adapter
from attnforge.workflow.inputs import Inputs
from attnforge.workflow.machine import Machine


def answered(machine: Machine, plan: BuildPlan, recipe: Recipe, inputs: Inputs, generated: Path) -> frozenset[str]:
    """Return which of the recipe's questions the PyTorch of a build answers with yes."""
    return answers_to(find_adapter(recipe).questions(), inputs, generated, machine, standard_of(plan))


def answers_to(
    questions: Mapping[str, str], inputs: Inputs, folder: Path, machine: Machine, standard: int
) -> frozenset[str]:
    """Return the names of the C++ texts that compile, by a C++ standard (17), against the PyTorch of the build."""
    answered = set()
    for name, text in questions.items():
        source = folder / f"{name}.cpp"
        source.write_text(text, encoding="utf-8")
        include = f"-I{inputs.environment.site_packages / 'torch' / 'include'}"
        argv = (inputs.compiler.path, f"-std=c++{standard}", "-fsyntax-only", include, str(source))
        command = process.Command(argv, folder, process.base_environment(machine.environ))
        if machine.runner(command).ok:
            answered.add(name)
    return frozenset(answered)


def other_layout(plan: BuildPlan, recipe: Recipe) -> BuildError:
    """Return the error for a PyTorch that lays out what crosses to the kernels in another way than the others."""
    target, crossing = plan.target, find_adapter(recipe).crossing
    return BuildError(
        f"PyTorch {target.torch} can't share kernels with the others of this wheel",
        why=f"it lays out what is handed to the kernels{crossing and f' ({crossing})'} in another way",
        hint=f"build a separate wheel: attnforge build {plan.package}=={plan.version} --torch {target.torch}",
    )
