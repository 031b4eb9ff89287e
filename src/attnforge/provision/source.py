"""Upstream's source: fetched by hash from an index, or a folder or archive of the user's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnforge.errors import HostError, RequestError
from attnforge.files import disk_errors, file_sha256, unfinished
from attnforge.model.versions import as_version
from attnforge.paths import Folders
from attnforge.process import redact
from attnforge.provision.archives import SUFFIXES, read_files
from attnforge.provision.indexes import IndexSettings, SdistRelease, local_path, network_errors, releases, session
from attnforge.provision.metadata import FILES, static_metadata
from attnforge.provision.store import locked
from attnforge.provision.trees import tree_sha256

_ATTEMPTS = 3

Lookup = Callable[[str, IndexSettings], tuple[SdistRelease, ...]]


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A source on this machine. ``name`` and ``version`` are "" where its files do not state them.

    ``sha256`` is that of an archive's bytes or of a folder's files (``tree_sha256``).
    """

    kind: Literal["folder", "archive"]
    path: Path
    name: str
    version: str
    sha256: str


def open_local(path: Path) -> LocalSource:
    """Inspect a folder or archive that is to be built; RequestError for anything that is neither."""
    path = path.absolute()
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise RequestError(f"{path} does not exist", hint="name a folder with a setup.py, or a source archive")
    if path.suffix == ".whl":
        raise RequestError(f"{path.name} is a wheel, built already", hint=f"attnforge audit '{path}'")
    return _open_archive(path)


def _open_folder(path: Path) -> LocalSource:
    if not any((path / name).is_file() for name in ("setup.py", "pyproject.toml")):
        raise RequestError(
            f"{path} holds neither setup.py nor pyproject.toml", hint="name the folder that holds upstream's setup.py"
        )
    name, version = stated(path)
    return LocalSource("folder", path, name, version, tree_sha256(path))


def stated(folder: Path) -> tuple[str, str]:
    """Return the name and version that a folder's files state, "" for each that they do not state."""
    files = {name: (folder / name).read_text("utf-8", "replace") for name in FILES if (folder / name).is_file()}
    return static_metadata(files)


def empty_submodules(folder: Path) -> tuple[str, ...]:
    """Return the submodules that a clone's .gitmodules names and whose folders are empty or absent."""
    file = folder / ".gitmodules"
    text = file.read_text("utf-8", "replace") if file.is_file() else ""
    paths = re.findall(r"^\s*path\s*=\s*(\S.*?)\s*$", text, re.MULTILINE)
    return tuple(path for path in paths if not (folder / path).is_dir() or not any((folder / path).iterdir()))


def own_version(folder: Path, import_name: str) -> str:
    """Return the ``__version__`` that a package's ``__init__.py`` states as text, or "": a clone has no PKG-INFO.

    FlashAttention 3 has that file beside its setup.py, and writes 3.0.0.b1 for 3.0.0b1.
    """
    places = (folder / import_name / "__init__.py", folder / "__init__.py") if import_name else ()
    for init in (place for place in places if place.is_file()):
        match = re.search(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", init.read_text("utf-8", "replace"), re.MULTILINE)
        if match:
            return str(as_version(match[1]) or match[1])
    return ""


def _open_archive(path: Path) -> LocalSource:
    name, version = static_metadata(read_files(path, FILES))
    stem = _stem(path.name)
    if not name and "-" in stem:  # NAME-VERSION.tar.gz: PEP 625
        name, _, version = stem.rpartition("-")
    return LocalSource("archive", path, name, version, file_sha256(path))


def _stem(name: str) -> str:
    suffix = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]


def fetch_sdist(
    name: str, version: str, sha256: str, folders: Folders, settings: IndexSettings, lookup: Lookup = releases
) -> Path:
    """Return the source archive of a release, downloaded once and kept by its hash.

    An archive that is kept already is hashed again and needs no network. With ``sha256`` "" the index's archive is
    accepted whatever its hash is. RequestError where the release does not exist. HostError where the network fails or
    the disk is full, and for an archive with another hash, which is removed.
    """
    kept = _kept(folders, sha256)
    if kept:
        return kept
    release = _choose(name, version, sha256, lookup(name, settings))
    entry = folders.sources / (sha256 or release.sha256 or f"{name}-{version}")
    with locked(entry), disk_errors(folders.sources):
        return _kept(folders, sha256 or release.sha256) or _download(release, sha256, folders, settings)


def has_sdist(folders: Folders, sha256: str) -> bool:
    """Say whether a source archive of that hash is kept. It is hashed when it is used."""
    return bool(sha256) and (folders.sources / sha256).is_dir()


def _kept(folders: Folders, sha256: str) -> Path | None:
    if not sha256 or not (folders.sources / sha256).is_dir():
        return None
    files = sorted((folders.sources / sha256).iterdir())
    return next((path for path in files if path.is_file() and file_sha256(path) == sha256), None)


def _choose(name: str, version: str, sha256: str, found: tuple[SdistRelease, ...]) -> SdistRelease:
    from packaging.version import Version

    same = [release for release in found if Version(release.version) == Version(version)]
    if not same:
        newest = ", ".join(dict.fromkeys(release.version for release in found[:5]))
        raise RequestError(f"there is no source archive of {name} {version}", hint=f"the newest are {newest}")
    fitting = [release for release in same if sha256 in (release.sha256, "") or not release.sha256]
    if not fitting:
        raise _wrong_hash(same[0].filename, sha256, same[0].sha256)
    return fitting[0]


def _wrong_hash(filename: str, wanted: str, actual: str) -> HostError:
    return HostError(
        f"{filename} is refused: its SHA-256 is not the one that was asked for",
        why=f"wanted {wanted}, the index has {actual}",
        hint="check the index or mirror that pip and uv are configured with; the file may have been tampered with",
    )


def _download(release: SdistRelease, sha256: str, folders: Folders, settings: IndexSettings) -> Path:
    with unfinished(folders.sources) as staged:
        _receive(release, staged, settings)
        actual = file_sha256(staged)
        wanted = sha256 or release.sha256 or actual
        if actual != wanted:
            raise _wrong_hash(release.filename, wanted, actual)
        place = folders.sources / actual / Path(release.filename).name
        place.parent.mkdir(exist_ok=True)
        return staged.replace(place)


def _receive(release: SdistRelease, place: Path, settings: IndexSettings) -> None:
    """Write a release's archive to ``place``; a connection that breaks is tried again."""
    if release.url.startswith("file:"):
        shutil.copyfile(local_path(release.url), place)
        return
    with session(settings) as client:
        for left in reversed(range(_ATTEMPTS)):
            try:
                with network_errors(f"{release.filename} could not be downloaded from {redact(release.url)}"):
                    _stream(client, release.url, place)
                break
            except HostError:
                if not left:
                    raise


def _stream(client: Any, url: str, place: Path) -> None:
    identity = {"Accept-Encoding": "identity"}  # or it comes unpacked
    with place.open("wb") as sink, client.stream("GET", url, headers=identity) as response:
        response.raise_for_status()
        for chunk in response.iter_raw():
            sink.write(chunk)
