"""PyTorch releases that the table of known ones lacks, read from their wheels on the configured index."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from packaging.version import Version

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.knowledge.torch import TorchRelease, cuda_of_local, cxx_of, find_torch, is_listed
from attnforge.knowledge.torchwheel import cuda_in, is_for_linux, pythons_in
from attnforge.model.plan import BuildPlan
from attnforge.model.target import is_free_threaded
from attnforge.model.universal import numbers
from attnforge.model.versions import as_version
from attnforge.provision.indexes import NETWORK_HINT, IndexSettings
from attnforge.provision.wheelmetadata import WheelOnIndex, read_metadata, wheels_of
from attnforge.wheelfile.metadata import fields_of

_MINOR = re.compile(r"\d+\.\d+")


def read_torches(text: str, settings: IndexSettings) -> tuple[TorchRelease, ...]:
    """Return the releases that a list or range of PyTorch names (``2.16.0``, ``2.15-2.16``) and that the table lacks.

    The index is not asked where the table has all of them. The resolver refuses text that is no version. RequestError
    where the index has no such PyTorch, or only one without CUDA; HostError where it can't be reached.
    """
    words = [word.strip() for word in re.split("[,;]", text)]
    unknown = [end for word in words for end in _ends(word) if as_version(end) and not is_listed(end)]
    if not unknown:
        return ()
    wheels = _wheels(unknown[0], settings)
    wanted = dict.fromkeys((*unknown, *(minor for word in words for minor in _between(word, wheels))))
    read = {release.version: release for release in (_read(one, wheels, settings) for one in wanted)}
    return tuple(read.values())


def release_for(text: str, plan: BuildPlan | None, settings: IndexSettings) -> TorchRelease:
    """Return the release that a version means: of the table, of a wheel's own plan, or of the index.

    A plan says enough of its PyTorch to make the environment that its wheel was built for. RequestError and HostError
    as ``read_torches`` raises them.
    """
    if is_listed(text) or as_version(text) is None:
        return find_torch(text)
    public = Version(text).public
    pythons = _pythons_with(public, plan) if plan else ()
    if plan and pythons:
        cuda = plan.target.cuda
        locked = tuple(python for python in pythons if not is_free_threaded(python))
        free = tuple(python for python in pythons if is_free_threaded(python))
        return TorchRelease(version=public, cuda=(cuda,), index_cuda=cuda, pythons=locked, free_threaded=free)
    return find_torch(text, read_torches(text, settings))


def _pythons_with(torch: str, plan: BuildPlan) -> tuple[str, ...]:
    """Return the Pythons that a plan is for with a PyTorch."""
    pairs = [(pair.python, pair.torch) for pair in plan.pairs] or [(plan.target.python, plan.target.torch)]
    return tuple(python for python, other in pairs if other == torch)


def _ends(word: str) -> list[str]:
    return [part.strip() for part in word.split("-")]


def _between(word: str, wheels: Sequence[WheelOnIndex]) -> Iterator[str]:
    """Yield the minors between the ends of a range that the index has and the table lacks."""
    ends = _ends(word)
    if len(ends) == 2 and all(map(_MINOR.fullmatch, ends)):
        first, last = map(numbers, ends)
        minors = {".".join(map(str, Version(one.version).release[:2])) for one in wheels if _is_final(one)}
        yield from (one for one in sorted(minors, key=numbers) if first < numbers(one) < last and not is_listed(one))


def _is_final(wheel: WheelOnIndex) -> bool:
    return not Version(wheel.version).is_prerelease


def _wheels(text: str, settings: IndexSettings) -> tuple[WheelOnIndex, ...]:
    try:
        found = wheels_of("torch", settings)
    except HostError as error:
        raise HostError(
            f"PyTorch {text} is not in attnforge's table, and the package index can't be reached",
            why=error.why or error.what,
            hint=f"{NETWORK_HINT}; or use a PyTorch of the table: {_nearest(text)}",
        ) from error
    return tuple(wheel for wheel in found if as_version(wheel.version) and is_for_linux(wheel.filename))


def _read(text: str, wheels: Sequence[WheelOnIndex], settings: IndexSettings) -> TorchRelease:
    """Return the release that a text means: ``2.16.0``, or the newest final patch of ``2.16``."""
    alike = [wheel for wheel in wheels if _is_meant(Version(wheel.version), Version(text), text)]
    public = max((Version(Version(wheel.version).public) for wheel in alike), default=None)
    builds = [wheel for wheel in alike if Version(Version(wheel.version).public) == public]
    usable = [wheel for wheel in builds if not _is_without_cuda(wheel)]
    if not builds:
        raise RequestError(
            f"PyTorch {text} is not known",
            why="neither attnforge's table nor a configured package index has it for Linux on x86-64",
            hint=f"nearest: {_nearest(text)}; or name its index, as for pip: PIP_EXTRA_INDEX_URL",
        )
    # `torch==VERSION` installs the newest of the builds: one with a local version is newer than one without.
    chosen = max(usable or builds, key=lambda wheel: Version(wheel.version))
    cuda = _cuda(chosen, settings)
    if not cuda:
        raise RequestError(
            f"PyTorch {text} on the package index is built without CUDA",
            why=f"{chosen.filename} requires no CUDA toolkit",
            hint=f"name an index that has it with CUDA, as for pip: PIP_EXTRA_INDEX_URL; or {_nearest(text)}",
        )
    pythons, free = pythons_in(wheel.filename for wheel in builds if wheel.version == chosen.version)
    version = str(public)
    return TorchRelease(
        version=version,
        cuda=(cuda,),
        index_cuda=cuda,
        pythons=pythons,
        free_threaded=free,
        cxx=cxx_of(version),
        read_from=chosen.filename,
    )


def _is_meant(version: Version, wanted: Version, text: str) -> bool:
    if _MINOR.fullmatch(text):
        return version.release[:2] == wanted.release and not version.is_prerelease
    return Version(version.public) == Version(wanted.public)


def _is_without_cuda(wheel: WheelOnIndex) -> bool:
    local = Version(wheel.version).local or ""
    return bool(local) and not cuda_of_local(local)


def _cuda(wheel: WheelOnIndex, settings: IndexSettings) -> str:
    """Return the CUDA of a build by its local version (``cu130``) or its requirements; "" for none."""
    local = Version(wheel.version).local or ""
    if local:
        return cuda_of_local(local)
    return cuda_in(fields_of(read_metadata(wheel, settings)).get("requires_dist", ()))


def _nearest(text: str) -> str:
    try:
        return f"--torch {find_torch(text).version}"
    except AttnforgeError as error:
        return error.hint.removeprefix("nearest: ")
