"""What upstream's build made: its modules, and the objects of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from attnforge.audit.metadata import import_name
from attnforge.compile.reuse.reads import is_neutral
from attnforge.compile.run.work import Product
from attnforge.errors import BuildError
from attnforge.link.partition import ObjectFile, init_name, read_object
from attnforge.model.graph import Language
from attnforge.model.universal import Pair, UniversalModule, pair_of
from attnforge.package.archive import read_members
from attnforge.workflow.artifacts import Compiled


@dataclass(frozen=True, slots=True)
class BuiltModule:
    """A module of upstream's build: its import name, its objects, and the file in upstream's wheel.

    ``path`` is the file's path there, ``data`` its bytes.
    """

    name: str
    objects: tuple[ObjectFile, ...]
    path: str
    data: bytes

    def place(self, module: UniversalModule, pair: Pair) -> str:
        """Return where the module of a pair is in a universal wheel."""
        return f"{module.folder}/{pair.folder}/{PurePosixPath(self.path).name}"


def built_modules(compiled: Compiled) -> list[BuiltModule]:
    """Return the modules of upstream's build, by name. Each call of ninja makes the objects of one module.

    BuildError where it can't be told which, or where there is none.
    """
    theirs = {path: one.data for path, one in read_members(compiled.wheel).items() if path.endswith(".so")}
    found = []
    for objects in _calls(compiled.products):
        path = _file_of(objects, theirs)
        found.append(BuiltModule(import_name(path), tuple(objects), path, theirs[path]))
    if not found:
        raise BuildError("upstream's build compiled no module", hint="build it without --universal")
    # Calls may come at once, in any order.
    return sorted(found, key=lambda one: one.name)


def _file_of(objects: list[ObjectFile], theirs: Iterable[str]) -> str:
    """Return the module in upstream's wheel that these objects are linked to."""
    leaf = init_name(objects)
    fitting = [path for path in theirs if leaf and PurePosixPath(path).name.partition(".")[0] == leaf]
    if len(fitting) != 1:
        raise BuildError(
            f"it can't be told which module is made of {', '.join(objects[0].sources[:1]) or 'nothing'}",
            why=f"{len(fitting)} modules of upstream's wheel have the name {leaf!r}",
            hint="build it without --universal",
        )
    if pair_of(f"torch0.0/{PurePosixPath(fitting[0]).name}") is None:
        raise BuildError(
            f"{fitting[0]} is not of one Python",
            why="a universal wheel has a module for each Python, and this one loads with several unchanged",
            hint="build it without --universal",
        )
    return fitting[0]


def _calls(products: Iterable[Product]) -> list[list[ObjectFile]]:
    calls: dict[int, list[ObjectFile]] = {}
    for product in products:
        if product.how not in ("empty", "merged") and product.language is not Language.OTHER:
            cuda = product.language is not Language.CXX
            neutral = is_neutral(product.reads) and product.language is not Language.DEVICE_LINK
            one = read_object(Path(product.output), product.sources, cuda=cuda, neutral=neutral)
            calls.setdefault(product.call, []).append(one)
    return [objects for _, objects in sorted(calls.items())]
