"""A CUDA toolkit from NVIDIA's archives, one for each component: fetched, checked, and merged into one folder.

Each archive has one top folder with bin, include, lib and its LICENSE. Only the licenses are in more than one archive.
Libraries are in lib, and nvcc's profile searches lib64. nixpkgs (cuda-modules) and OpenXLA (rules_ml_toolchain) merge
them in the same way.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnforge.errors import AttnforgeError, HostError
from attnforge.files import disk_errors, text_sha256, write_whole
from attnforge.knowledge.redist import (
    CudaRelease,
    base_url,
    components_of,
    known_manifests,
    license_name,
    platform_of,
)
from attnforge.model.events import Message, Observer, ignore
from attnforge.model.plan import ToolchainPin, ToolkitArchive
from attnforge.paths import Folders
from attnforge.process import redact
from attnforge.provision.archives import unpack
from attnforge.provision.download import Wanted, download
from attnforge.provision.indexes import IndexSettings, local_path, network_errors, session
from attnforge.provision.store import Facts, is_complete, provide
from attnforge.provision.toolchain import (
    Toolchain,
    check_compiler,
    check_compiles,
    check_path,
    complete,
    nvcc_version,
)
from attnforge.provision.uv import Uv

_LAYOUT = 1  # raised when what is made of the same archives changes
_LICENSES = "licenses"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+(\.\d+)+")
_MANIFEST_BYTES = 10**7  # NVIDIA's have about 70 kB
_HINT = "check the network and HTTPS_PROXY, or name a mirror: --cuda-mirror URL, or a folder with the archives"


def provide_release(
    pin: ToolchainPin, mirror: str, folders: Folders, uv: Uv, compiler: str, observe: Observer = ignore
) -> Toolchain:
    """Return the toolchain that a plan pins to NVIDIA's archives; it is made once and kept by their hashes.

    ``mirror`` is a URL or folder that has NVIDIA's files, "" for NVIDIA's own. Nothing is fetched for a toolkit that is
    kept, and only what is missing after an interrupted download. A toolkit is complete when it has compiled and linked
    a kernel with the C++ compiler at ``compiler``. HostError where an archive can't be fetched or differs from the pin,
    where nvcc does not work or there is no C++ compiler for it, and where the disk is full.
    """
    entry = folders.toolchains / _name(pin)
    check_path(entry)
    nvcc = entry / "toolkit" / "bin" / "nvcc"
    provide(entry, lambda folder: _make(folder, pin, mirror, folders, uv, compiler, observe), lambda _: nvcc.exists())
    made_of = tuple(f"{archive.component} {archive.version}" for archive in pin.archives)
    return Toolchain(nvcc.parent.parent, nvcc, pin.cuda, pin.nvcc, "nvidia", made_of)


def has_release(folders: Folders, pin: ToolchainPin) -> bool:
    """Say whether the toolchain of a plan is made already."""
    return is_complete(folders.toolchains / _name(pin))


def _name(pin: ToolchainPin) -> str:
    made_of = " ".join((*sorted(archive.sha256 for archive in pin.archives), str(_LAYOUT)))
    return f"cuda-{pin.cuda}-nvidia-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def _make(
    folder: Path, pin: ToolchainPin, mirror: str, folders: Folders, uv: Uv, compiler: str, observe: Observer
) -> Facts:
    check_compiler(compiler)
    name, url = license_name()
    observe(Message("info", f"toolchain: NVIDIA's components are under the {name}, {url}; their texts are kept"))
    wanted = [
        Wanted(archive.component, _at(mirror, archive.path), archive.size, archive.sha256) for archive in pin.archives
    ]
    got = download(wanted, folders.toolchains / "archives", uv.settings, observe, hint=_HINT)
    home = folder / "toolkit"
    for archive in pin.archives:
        _add(got[archive.sha256], archive, folder / "unpacked", home)
    complete(home)
    found = nvcc_version(home / "bin" / "nvcc", uv.runner, {})
    if found != pin.nvcc:
        raise HostError(f"the nvcc that was fetched is {found}, not {pin.nvcc}", hint="check the mirror: --cuda-mirror")
    check_compiles(home / "bin" / "nvcc", folder, compiler, uv.runner, uv.environ)
    for path in got.values():
        path.unlink(missing_ok=True)
    return {"release": pin.release, "manifest": pin.manifest, "archives": [one.to_json() for one in pin.archives]}


def _at(mirror: str, path: str) -> str:
    """Return the address of a file: below NVIDIA's URL, or below the mirror's, which may be a folder."""
    root = mirror or base_url()
    root = root if "://" in root or root.startswith("file:") else str(Path(root).expanduser().absolute())
    return f"{root.rstrip('/')}/{path}"


def _add(packed: Path, archive: ToolkitArchive, unpacked: Path, home: Path) -> None:
    """Unpack an archive and move what is in it into the toolkit; its license goes to a separate folder."""
    # unpack() needs the suffix of the name, and archives are named by their hash.
    named = unpacked.with_name(Path(archive.path).name)
    try:
        named.symlink_to(packed)
        top = unpack(named, unpacked)
    except AttnforgeError as error:
        raise HostError(f"{archive.component} of CUDA can't be unpacked", why=f"{error.what}: {error.why}") from error
    finally:
        named.unlink(missing_ok=True)
    licenses = home / _LICENSES / archive.component
    licenses.mkdir(parents=True)
    for path in [path for path in top.iterdir() if path.name.upper().startswith("LICENSE")]:
        path.replace(licenses / path.name)
    _merge(top, home)
    shutil.rmtree(unpacked)


def _merge(folder: Path, into: Path) -> None:
    """Move what is in a folder into another. A file that exists already stays; archives are merged in a fixed order."""
    into.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir()):
        place = into / path.name
        if path.is_dir() and not path.is_symlink():
            _merge(path, place)
        elif not (place.exists() or place.is_symlink()):
            path.replace(place)


# --- releases that are not pinned


def fetch_release(version: str, machine: str, mirror: str, folders: Folders, settings: IndexSettings) -> CudaRelease:
    """Return a release by NVIDIA's manifest, which is fetched once and kept.

    HostError where it can't be fetched, has another hash than the known one, or lacks a component that a build reads
    for this ``machine`` (``x86_64``).
    """
    name = f"redistrib_{version}.json"
    url = _at(mirror, name)
    known = known_manifests().get(version, "")
    place = folders.toolchains / "manifests" / (known or hashlib.sha256(url.encode()).hexdigest()[:16]) / name
    text = _kept_manifest(place, known) or _fetch_manifest(url, name, known, place, settings)
    return parse_manifest(text, version, machine)


def _kept_manifest(place: Path, known: str) -> str:
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if known in ("", text_sha256(text)) else ""


def _fetch_manifest(url: str, name: str, known: str, place: Path, settings: IndexSettings) -> str:
    text = _read(url, name, settings)
    if known and text_sha256(text) != known:
        raise HostError(
            f"{name} is refused: its SHA-256 is not the known one",
            why=f"wanted {known}, {redact(url)} has {text_sha256(text)}",
            hint="check the mirror and the proxy; the file may have been tampered with",
        )
    with disk_errors(place.parent):
        write_whole(place, text)
    return text


def _read(url: str, name: str, settings: IndexSettings) -> str:
    if "://" not in url or url.startswith("file:"):
        try:
            return Path(local_path(url)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise HostError(f"{name} can't be read from the mirror", why=str(error), hint=_HINT) from error
    try:
        with network_errors(f"{name} could not be fetched"), session(settings) as client:
            answer = client.get(url)
            answer.raise_for_status()
            return bytes(answer.content[:_MANIFEST_BYTES]).decode("utf-8", "replace")
    except HostError as error:
        why = f"{redact(url)}: {error.why}"
        hint = f"{_HINT}. `attnforge plan --toolchain nvidia` uses a release that needs no manifest"
        raise HostError(error.what, why=why, hint=hint) from error


def parse_manifest(text: str, version: str, machine: str) -> CudaRelease:
    """Return the components of a release that a build reads, from NVIDIA's manifest. HostError where one is missing."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad_manifest(version, f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _bad_manifest(version, "it is not an object")
    if document.get("release_label", version) != version:
        raise _bad_manifest(version, f"it is the manifest of {document['release_label']}")
    platform = platform_of(machine)
    archives = tuple(_archive(document, names, platform, version) for names in components_of(version))
    return CudaRelease(version=version, manifest=text_sha256(text), archives=archives)


def _archive(document: Mapping[str, Any], names: tuple[str, ...], platform: str, version: str) -> ToolkitArchive:
    name = next((name for name in names if name in document), names[0])
    try:
        component = document[name]
        entry = component[platform]
        archive = ToolkitArchive(
            component=name,
            version=component["version"],
            path=entry["relative_path"],
            size=int(entry["size"]),
            sha256=entry["sha256"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad_manifest(version, f"it has no {name} for {platform or 'this machine'}") from error
    # The path goes into a URL and its last part into a file name.
    parts = archive.path.split("/")
    if ".." in parts or "" in parts or "\\" in archive.path or not archive.path.endswith(".tar.xz"):
        raise _bad_manifest(version, f"the path of {name} is {archive.path!r}")
    if not (_SHA256.fullmatch(archive.sha256) and _VERSION.fullmatch(archive.version) and archive.size > 0):
        raise _bad_manifest(version, f"the hash, version or size of {name} is malformed")
    return archive


def _bad_manifest(version: str, why: str) -> HostError:
    return HostError(
        f"the manifest of CUDA {version} can't be used",
        why=why,
        hint="name another release, or a mirror that has NVIDIA's own files: --cuda-mirror",
    )
