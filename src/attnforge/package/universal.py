"""Universal wheels: made from upstream's wheel of one pair and the modules of all, or from one with fewer pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from attnforge import inwheel
from attnforge.errors import BuildError, WheelError
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Universal, UniversalModule, pair_of
from attnforge.package.archive import Member
from attnforge.package.metadata import name_and_version, rebind, retag
from attnforge.package.provenance import FOLDER, documents
from attnforge.package.sbom import PLACE, Vendored, bill
from attnforge.package.unpacked import Named, Unpacked, labelled, unpack
from attnforge.wheelfile.name import SHARED_OBJECT


def package_universal(
    upstream: Path,
    folder: Path,
    plan: BuildPlan,
    universal: Universal,
    built: Mapping[str, bytes],
    builder: str,
    vendored: Iterable[Vendored] = (),
) -> Path:
    """Write a universal wheel into ``folder`` and return its path.

    ``upstream`` is upstream's wheel of the first pair, whose own extension modules are left out. ``built`` are the
    libraries and the pairs' modules by their paths in the wheel, ``vendored`` what of other projects is compiled in
    (sbom.vendored). Raises BuildError where upstream packed something else than what was planned, or where a file is
    missing.
    """
    old = unpack(upstream, plan)
    members = {**_without_modules(old, universal), **_members(built)}
    form = _Form(plan, universal, builder, tuple(vendored))
    return form.write(folder, old, name_and_version(old.metadata)[1], members)


def extend_wheel(
    wheel: Path,
    folder: Path,
    plan: BuildPlan,
    universal: Universal,
    built: Mapping[str, bytes],
    builder: str,
    vendored: Iterable[Vendored] = (),
) -> Path:
    """Write a universal wheel with further pairs into ``folder`` and return its path.

    ``wheel`` is one with fewer pairs, ``built`` the modules of the further ones by their paths; ``plan`` and
    ``universal`` are those of all. What is no metadata stays byte for byte, and the new wheel has the bytes that
    package_universal would give it. Raises BuildError where a file is missing or would be changed, WheelError where the
    wheel is damaged.
    """
    old = unpack(wheel, plan, WheelError)
    changed = sorted(path for path, data in built.items() if path in old.files and old.files[path].data != data)
    if changed:
        raise BuildError(
            f"{wheel.name} has {changed[0]} already, with other contents",
            why="what is in a wheel is not replaced when pairs are added to it",
            hint="build a new wheel for all pairs: attnforge build --universal",
        )
    version = name_and_version(old.metadata)[1]
    upstreams = version.partition("+")[0] if _label(old) else version
    form = _Form(plan, universal, builder, tuple(vendored))
    return form.write(folder, old, upstreams, {**old.files, **_members(built)})


def loader(wheel: str, cuda: str) -> bytes:
    """Return the ``__init__.py`` that stands for an extension module in the wheel of this file name."""
    source = files(inwheel).joinpath("loader.py").read_text(encoding="utf-8")
    return f"{source}\n\nload(__name__, __file__, wheel={wheel!r}, cuda={cuda!r})\n".encode()


@dataclass(frozen=True, slots=True)
class _Form:
    """What a universal wheel says of itself, whatever it is made from."""

    plan: BuildPlan
    universal: Universal
    builder: str
    vendored: tuple[Vendored, ...]

    def write(self, folder: Path, old: Unpacked, upstreams: str, members: Mapping[str, Member]) -> Path:
        """Write the wheel of these members into a folder. ``upstreams`` is upstream's version."""
        _check_complete(self.universal, members)
        version, tags = labelled(upstreams, self.plan.label), f"py3-none-{self.plan.target.platform}"
        named = Named.like(old, version, tags)
        code = Member(loader(named.file, self.plan.target.cuda))
        loaders = {f"{module.folder}/__init__.py": code for module in self.universal.modules}
        metadata = rebind(old.metadata, version, self.universal.pairs)
        runtime = any(module.library for module in self.universal.modules)
        made = {
            "METADATA": metadata.encode(),
            "WHEEL": retag(old.information["WHEEL"].data.decode(), tags).encode(),
            PLACE: bill(self.plan, self.builder, named.file, metadata, self.vendored, static_runtime=runtime),
            **documents(self.plan, self.builder, self.universal),
        }
        kept = {path: member for path, member in old.information.items() if not path.startswith(f"{FOLDER}/")}
        information = {**kept, **{path: Member(data) for path, data in made.items()}}
        return named.write(folder, {**members, **loaders}, information)


def _members(built: Mapping[str, bytes]) -> dict[str, Member]:
    return {path: Member(data, executable=True) for path, data in built.items()}


def _label(old: Unpacked) -> str:
    """Return the label that a wheel of ours was given, "" for none."""
    return str(json.loads(old.information[f"{FOLDER}/plan.json"].data)["label"])


def _without_modules(old: Unpacked, universal: Universal) -> dict[str, Member]:
    """Return upstream's files but its extension modules, each of which the universal wheel has to have."""
    absent = [module.name for module in universal.modules if not any(_is(module, path) for path in old.files)]
    if absent:
        raise BuildError(f"upstream's wheel {old.name} has no module {', '.join(absent)}")
    kept = {
        path: member for path, member in old.files.items() if not any(_is(module, path) for module in universal.modules)
    }
    left = [path for path in kept if SHARED_OBJECT.search(path)]
    if left:
        raise BuildError(
            f"upstream's wheel {old.name} has {left[0]}, which the universal wheel has no counterpart of",
            why="it is for one Python and one PyTorch",
            hint="build without --universal, or name the module in the recipe",
        )
    return kept


def _is(module: UniversalModule, path: str) -> bool:
    """Say whether a file is an extension module by its import name, whatever its suffix: ``.abi3.so``, ``.so``."""
    return re.fullmatch(rf"{re.escape(module.folder)}(?:\.[\w-]+)?\.so", path) is not None


def _check_complete(universal: Universal, members: Mapping[str, Member]) -> None:
    for module in universal.modules:
        if module.library and module.library_path not in members:
            raise BuildError(f"there is no {module.library_path} for the universal wheel")
        there = {pair_of(path) for path in members if _lies_in(module, path)}
        absent = [pair for pair in universal.pairs if pair.key not in there]
        if absent:
            raise BuildError(f"there is no module {module.name} for {absent[0]}")


def _lies_in(module: UniversalModule, path: str) -> bool:
    leaf = PurePosixPath(path).name.partition(".")[0]
    return str(PurePosixPath(path).parent.parent) == module.folder and leaf == module.leaf
