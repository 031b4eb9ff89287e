"""The arrows between the parts, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import attnforge

ROOT = Path(attnforge.__file__).parent
VERBS = {"audit", "bench", "check", "compile", "host", "link", "package", "provision", "recipes", "resolve"}
GROUND = {"model", "errors", "process", "paths", "version", "elf", "files", "schedule", "wheelfile"}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a module: each is asked about several times."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> set[str]:
    """The parts of attnforge that a module imports: ``model`` for attnforge.model.plan."""
    found = set()
    for node in nodes(path):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("attnforge.")}
        if isinstance(node, ast.ImportFrom) and node.module == "attnforge":
            found |= {alias.name for alias in node.names}
    return found


def part(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_one_way(path: Path) -> None:
    here, there = part(path), imports(path)
    allowed = {
        "model": {"errors"},
        "errors": set(),
        "process": set(),
        "paths": {"errors"},
        "version": set(),
        "elf": {"errors"},
        "files": {"errors"},
        "wheelfile": {"model", "errors", "files"},
        "schedule": {"model"},
        "knowledge": {"model", "errors", "wheelfile"},
        "options": {"errors"},
        "config": {"errors", "options"},
        "ongpu": set(),
        "inwheel": set(),
        "package": {"package", "inwheel", "knowledge", *GROUND},
        # The types of the messages to and from the program beside a wheel.
        "check": {"check", "knowledge", "ongpu", *GROUND},
        "bench": {"bench", "knowledge", "ongpu", *GROUND},
        "workflow": VERBS | GROUND | {"knowledge", "ongpu"},
    }.get(here, {here, "knowledge", *GROUND} if here in VERBS else None)
    if allowed is not None:
        assert there - {here} <= allowed


# The packages of compile, each with those that it may import.
COMPILE = {
    "graph": set(),
    "seat": {"graph"},
    "nvcc": {"graph"},
    "reuse": {"graph", "nvcc"},
    "run": {"graph", "seat", "nvcc", "reuse"},
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "compile").glob("*/**/*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_packages_of_compile_import_one_another_in_one_direction(path: Path) -> None:
    here = path.relative_to(ROOT / "compile").parts[0]
    names = [
        f"{node.module}.{alias.name}"
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    there = {name.split(".")[2] for name in names if name.startswith("attnforge.compile.")}
    assert there - {here} <= COMPILE[here]


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in MODULES}
    modules = {name.removesuffix(".__init__"): path for name, path in names.items()}
    imported = {name: set(_modules_imported(path, modules)) - {name} for name, path in modules.items()}
    TopologicalSorter(imported).prepare()  # raises CycleError


def _modules_imported(path: Path, modules: Collection[str]) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from {inner if inner in modules else node.module} & set(modules)


def test_finding_a_source_needs_no_plan_and_no_build() -> None:
    for path in (ROOT / "workflow" / "sources").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("attnforge.workflow."):
                assert module.split(".")[2] in {"sources", "machine", "outside"}, path


BESIDE_THE_WHEEL = sorted(path for name in ("ongpu", "inwheel") for path in (ROOT / name).glob("*.py"))
# Runs in whatever interpreter a user's environment has.
BESIDE_THE_WHEEL.append(ROOT / "host" / "inquiry.py")


@pytest.mark.parametrize("path", BESIDE_THE_WHEEL, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_beside_the_wheel_needs_torch_alone_and_an_older_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"torch"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    # Programs of their own, which upstream's build or the engine start.
    if part(path) == "cli" or path.name in {"seat.py", "reaper.py", "child.py", "__main__.py"}:
        return
    for node in nodes(path):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "exit", "quit", "sys.exit", "os._exit"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_changes_the_processs_own_environment_or_folder(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for forbidden in ("os.chdir", "os.putenv", "os.environ["):
        assert forbidden not in text
