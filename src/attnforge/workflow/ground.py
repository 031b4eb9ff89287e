"""What upstream's build stands on: source, toolchain, environment, compiler; and the variables that it is given."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from attnforge import process
from attnforge.errors import AttnforgeError, BuildError
from attnforge.model.events import Observer, ignore
from attnforge.model.host import HostCompiler, Installed
from attnforge.model.plan import UNSTATED, BuildPlan, ToolchainPin
from attnforge.model.universal import Pair
from attnforge.provision.carrier import lay_out_carrier
from attnforge.provision.environment import BuildEnvironment, site_include_dirs
from attnforge.provision.indexes import file_sha256
from attnforge.provision.metadata import applies
from attnforge.provision.redist import provide_release
from attnforge.provision.source import copy_tree, fetch_sdist, tree_sha256, unpack
from attnforge.provision.toolchain import Toolchain, provide_toolchain
from attnforge.recipes.catalogue import UNKNOWN_REQUIREMENTS
from attnforge.workflow.fromgit import lay_out
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import other_builder
from attnforge.workflow.planning import Located
from attnforge.workflow.upstream import FROM_SOURCE, REPRODUCIBLE, build_requirements

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ground:
    """What upstream's build stands on."""

    source: Path
    toolchain: Toolchain
    environment: BuildEnvironment
    compiler: HostCompiler


def lay_out_source(machine: Machine, plan: BuildPlan, located: Located, into: Path, warn: Warn) -> Path:
    """Lay the plan's source out anew in ``into`` and return its folder: what an earlier build left there may be half
    written. BuildError where it is not what was planned.
    """
    pin = plan.source
    shutil.rmtree(into, ignore_errors=True)
    path, address = located.path, located.address
    if pin.kind == "git":
        assert address is not None
        folder, pointers = lay_out(machine, pin, address, into)
        if pointers:
            warn(f"Git LFS is not asked for the contents of {len(pointers)} files: {', '.join(pointers[:3])}")
        return folder
    if pin.kind == "sdist":
        carrier = pin.carrier
        name, version = (carrier.distribution, carrier.version) if carrier else (plan.package, plan.version)
        top = unpack(fetch_sdist(name, version, pin.sha256, machine.folders, machine.settings), into)
        return lay_out_carrier(top, carrier) if carrier else top
    assert path is not None
    laid_out = unpack(path, into) if pin.kind == "archive" else copy_tree(path, into)
    if (file_sha256(path) if pin.kind == "archive" else tree_sha256(laid_out)) != pin.sha256:
        raise BuildError(f"{path} changed after it was planned", hint="run the same command again")
    return laid_out


def provide_pinned(
    machine: Machine, pin: ToolchainPin, compiler: HostCompiler, mirror: str = "", observe: Observer = ignore
) -> Toolchain:
    """Return the toolchain that a plan pins; NVIDIA's archives come from ``mirror``, "" for NVIDIA's own server."""
    assert pin.origin != "none"
    if pin.origin == "nvidia":
        return provide_release(pin, mirror, machine.folders, machine.uv, compiler.path, observe)
    homes = [toolkit.home for toolkit in machine.host.toolkits if toolkit.nvcc == pin.nvcc and not toolkit.lacks]
    home = homes[0] if homes else ""
    return provide_toolchain(pin.cuda, pin.origin, home, machine.folders, machine.uv, compiler.path)


def requirements_of(plan: BuildPlan, located: Located, source: Path) -> tuple[str, ...]:
    """Return what the environment of a build has besides torch."""
    # A package without a recipe says itself what its build imports; a recipe's list is complete and pinned.
    if located.recipe.releases:
        return plan.requirements
    own = build_requirements(source)
    return (*without_conflicts(plan.requirements, own), *own)


def without_conflicts(pins: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """Return the pins of every build without a recipe, without those that a source's own requirements rule out."""
    asked = [one for one in map(Requirement, own) if applies(one)]
    return tuple(text for text in pins if text not in UNKNOWN_REQUIREMENTS or _is_allowed(Requirement(text), asked))


def _is_allowed(pin: Requirement, asked: Iterable[Requirement]) -> bool:
    versions = [clause.version for clause in pin.specifier]
    same = [one for one in asked if canonicalize_name(one.name) == canonicalize_name(pin.name)]
    return all(one.specifier.contains(version, prereleases=True) for one in same for version in versions)


@dataclass(frozen=True, slots=True)
class PairEnvironments:
    """The environments of a wheel's pairs: each module is built in one, and looked at and loaded against it.

    ``installed`` is an environment of the user's whose PyTorch serves its pair, None where there is none.
    """

    machine: Machine
    cuda: str
    requirements: tuple[str, ...]
    installed: Installed | None = None

    def of(self, pair: Pair) -> BuildEnvironment:
        """Return a pair's environment, made first where it is not there. HostError where it can't be made."""
        try:
            return self.having(pair.python, pair.torch)
        except AttnforgeError as error:
            raise of_pair(pair, error) from error

    def having(self, python: str, torch: str) -> BuildEnvironment:
        """Return the environment with a Python (``3.12``) and a PyTorch, made first where it is not there.

        ``torch`` "" is none. HostError where it can't be made.
        """
        installed = self.installed
        if installed and torch and (python, public(torch)) == (installed.minor, public(installed.torch)):
            return self.machine.overlay(installed, self.requirements)
        return self.machine.environment(python, torch, self.cuda, self.requirements)

    def sites(self, pairs: Iterable[Pair]) -> list[tuple[Pair, Path]]:
        """Return the site-packages folder of each pair's environment."""
        return [(pair, self.of(pair).site_packages) for pair in pairs]


def public(version: str) -> str:
    """Return a version without its local part, in its normal form."""
    return Version(version).public


def of_pair(pair: Pair, error: AttnforgeError) -> AttnforgeError:
    """Return an error that says which pair it is about."""
    if error.what.startswith(f"{pair}: "):
        return error
    return type(error)(f"{pair}: {error.what}", why=error.why, hint=error.hint, link=error.link)


def text_of(path: Path) -> str:
    """Return the text of a file of the source, "" where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def builder_of(source: Path) -> str:
    """Return the other program by which an unpacked source compiles (``outside.other_builder``)."""
    return other_builder(*(text_of(source / name) for name in ("setup.py", "pyproject.toml")))


def host_compiler_of(machine: Machine, pin: ToolchainPin) -> HostCompiler:
    """Return the host compiler that a plan pins with its toolchain."""
    return next(found for found in machine.host.compilers if f"{found.name} {found.version}" == pin.host_compiler)


def named_folders(ground: Ground, generated: Path) -> dict[str, str]:
    """Return the folders that differ from machine to machine, with the names that stand for them."""
    interpreter = ground.environment.python
    named = {
        ground.source: "source",
        generated: "generated",
        ground.environment.site_packages: "site-packages",
        interpreter.parent.parent: "environment",
        ground.toolchain.home: "cuda",
        ground.toolchain.home.resolve(): "cuda",
    }
    python = interpreter.resolve().parent.parent
    if python not in (Path("/"), Path("/usr"), Path("/usr/local")):
        named[python] = "python"
    return {str(folder): name for folder, name in named.items()}


def answers_to(
    questions: Mapping[str, str], ground: Ground, folder: Path, machine: Machine, standard: int
) -> frozenset[str]:
    """Return the names of the C++ texts that compile, by a C++ standard (17), against the PyTorch of the build."""
    answered = set()
    for name, text in questions.items():
        source = folder / f"{name}.cpp"
        source.write_text(text, encoding="utf-8")
        include = f"-I{ground.environment.site_packages / 'torch' / 'include'}"
        argv = (ground.compiler.path, f"-std=c++{standard}", "-fsyntax-only", include, str(source))
        command = process.Command(argv, folder, process.base_environment(machine.environ))
        if machine.runner(command).ok:
            answered.add(name)
    return frozenset(answered)


def stated_version(plan: BuildPlan) -> dict[str, str]:
    """Tell setuptools-scm the version: a folder or commit is built without .git, where it would look for one."""
    known = plan.source.kind in ("folder", "git") and plan.version != UNSTATED
    return {"SETUPTOOLS_SCM_PRETEND_VERSION": plan.version} if known else {}


def build_environment(
    plan: BuildPlan, ground: Ground, seat: Path, slots: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of upstream's build: nothing of ours but what it needs, the seat first on PATH."""
    compiler = Path(ground.compiler.path)
    c_name = compiler.name.replace("clang++", "clang").replace("g++", "gcc").replace("c++", "cc")
    c_compiler = compiler.with_name(c_name)
    nvcc_folder = ground.toolchain.nvcc.parent
    searched = [seat, ground.environment.python.parent, nvcc_folder, compiler.parent, "/usr/bin", "/bin"]
    architectures = ";".join(architecture.dotted for architecture in plan.target.architectures)
    return {
        **process.base_environment(environ),
        **FROM_SOURCE,
        **dict(plan.settings),
        **stated_version(plan),
        "PATH": os.pathsep.join(map(str, searched)),
        "CUDA_HOME": str(ground.toolchain.home),
        # PyTorch writes the path of nvcc into build.ninja as it is, where a space would end it.
        "PYTORCH_NVCC": shlex.quote(str(ground.toolchain.nvcc)),
        "CXX": str(compiler),
        "CC": str(c_compiler if c_compiler.exists() else compiler),
        "TORCH_CUDA_ARCH_LIST": architectures,
        "MAX_JOBS": str(slots),
        "TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES": "1",
        # Headers of torch's own dependencies, which a partial toolkit lacks (FA#157); searched after all -I folders.
        **dict(ground.environment.variables),
        "CPATH": os.pathsep.join(map(str, site_include_dirs(ground.environment))),
        **REPRODUCIBLE,
    }
