"""The environment variables of upstream's build: of the user's, only those that a build needs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnforge import process
from attnforge.model.plan import UNSTATED, BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.provision.bytecode import UNWRITTEN
from attnforge.provision.environment import site_include_dirs
from attnforge.provision.gpus import through_ninja, virtual_gpus, without_pip
from attnforge.workflow.inputs import Inputs, link_folder
from attnforge.workflow.layout import builder_of
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import generator
from attnforge.workflow.upstream import FROM_SOURCE, REPRODUCIBLE


def upstream_environment(
    machine: Machine,
    plan: BuildPlan,
    recipe: Recipe,
    inputs: Inputs,
    generated: Path,
    first: Sequence[Path],
    slots: int,
) -> dict[str, str]:
    """Return the environment of upstream's build, with the driver and the GPUs that it asks for.

    ``first`` are the folders that come first on PATH, the seat's before all.
    """
    stubs, options = link_folder(machine, inputs, generated)
    environment = build_environment(plan, inputs, first, slots, machine.environ)
    return {
        **environment,
        "TMPDIR": str(own_temporary(first[0])),
        "LIBRARY_PATH": str(stubs),
        **with_linker_options(environment, options),
        **without_pip(),
        **(virtual_gpus(plan.target.capabilities) if recipe.asks_for_gpus else {}),
        **({} if recipe.outside else {**through_ninja(), **generator(builder_of(inputs.source))}),
    }


def build_environment(
    plan: BuildPlan, inputs: Inputs, first: Sequence[Path], slots: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of upstream's build: nothing of ours but what it needs, ``first`` first on PATH."""
    compiler = Path(inputs.compiler.path)
    c_name = compiler.name.replace("clang++", "clang").replace("g++", "gcc").replace("c++", "cc")
    c_compiler = compiler.with_name(c_name)
    nvcc_folder = inputs.toolchain.nvcc.parent
    searched = [*first, inputs.environment.python.parent, nvcc_folder, compiler.parent, "/usr/bin", "/bin"]
    architectures = ";".join(architecture.dotted for architecture in plan.target.architectures)
    return {
        **process.base_environment(environ),
        **FROM_SOURCE,
        **dict(plan.settings),
        **stated_version(plan),
        "PATH": os.pathsep.join(map(str, searched)),
        "CUDA_HOME": str(inputs.toolchain.home),
        # PyTorch writes the path of nvcc into build.ninja unchanged, where a space would end it.
        "PYTORCH_NVCC": shlex.quote(str(inputs.toolchain.nvcc)),
        "CXX": str(compiler),
        "CC": str(c_compiler if c_compiler.exists() else compiler),
        "TORCH_CUDA_ARCH_LIST": architectures,
        "MAX_JOBS": str(slots),
        "TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES": "1",
        # Headers of torch's own dependencies, which a partial toolkit lacks (FA#157); searched after all -I folders.
        **dict(inputs.environment.variables),
        "CPATH": os.pathsep.join(map(str, site_include_dirs(inputs.environment))),
        **REPRODUCIBLE,
        **UNWRITTEN,
    }


def stated_version(plan: BuildPlan) -> dict[str, str]:
    """Tell setuptools-scm the version: a folder or commit is built without .git, where it would look for one."""
    known = plan.source.kind in ("folder", "git") and plan.version != UNSTATED
    return {"SETUPTOOLS_SCM_PRETEND_VERSION": plan.version} if known else {}


def with_linker_options(environment: Mapping[str, str], options: Sequence[str]) -> dict[str, str]:
    """Return LDFLAGS with options before those that a recipe sets; setuptools and CMake read it. Nothing for none.

    A compiler looks into its own folders before those of LIBRARY_PATH, and after those of its command line.
    """
    if not options:
        return {}
    return {"LDFLAGS": " ".join(filter(None, (shlex.join(options), environment.get("LDFLAGS", ""))))}


def own_temporary(seat: Path) -> Path:
    """Return where upstream's build has its temporary files: what goes with the seat, however the build ends."""
    return seat.with_name("upstream")
