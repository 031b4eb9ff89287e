"""The package indexes that pip and uv are configured with on this machine, and the source releases that they have.

attnforge adds no index. Where nothing is configured, each tool asks its default. unearth lists every file of a package.
uv resolves to one release and lists only that one: it does not say that a newer release has only wheels, which releases
are near, or which Pythons and PyTorch versions torch's wheels are for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.files import file_sha256
from attnforge.model.versions import as_version
from attnforge.process import redact

if TYPE_CHECKING:
    from unearth import Link, Package

NETWORK_HINT = "check the network, HTTPS_PROXY, PIP_INDEX_URL and PIP_CERT as for pip"
_SOURCE_HINT = f"{NETWORK_HINT}; without a network, build from a folder or an archive: attnforge build ./PATH"


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where packages come from.

    ``index_urls`` are asked in this order; where ``keeps_default`` is true nothing replaced the tools' own default
    index, which is asked first. ``find_links`` are folders, or pages of links. ``cert`` is a file of certificate
    authorities ("" for the system's), ``timeout`` in seconds for one answer, ``strategy`` how uv chooses between
    indexes ("" for its own way). URLs may hold credentials and are never shown.
    """

    index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    keeps_default: bool = True
    timeout: float = 15.0  # pip's default, in its --timeout
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class SdistRelease:
    """One source archive on an index. ``sha256`` is "" where the index does not state it."""

    version: str
    filename: str
    url: str = field(repr=False)
    sha256: str
    requires_python: str
    yanked: bool


@dataclass(frozen=True, slots=True)
class Offered:
    """The files of a package on the indexes: its source archives, newest first, and its newest final release.

    ``newest`` is "" where no release is final. ``wheels`` are the versions that have a wheel.
    """

    sdists: tuple[SdistRelease, ...]
    newest: str
    wheels: frozenset[str] = frozenset()


def offered(name: str, settings: IndexSettings, suggestions: Sequence[str] = ()) -> Offered:
    """Return the source archives of a package, yanked ones too, and which release is the newest.

    RequestError, with ``suggestions`` in its hint, where no index knows the name or none has a source archive of it;
    HostError where an index could not be asked.
    """
    with _complaints() as said, network_errors(f"the package index can't be asked for {name}"):
        packages = _find(name, settings)
    found = [_release(package) for package in packages if not package.link.is_wheel and _is_version(package.version)]
    if not found:
        raise _nothing(name, bool(packages), [text for text in said if _matters(text)], suggestions)
    wheels = frozenset(one.version or "" for one in packages if one.link.is_wheel)
    return Offered(tuple(sorted(found, key=_newest_last, reverse=True)), _newest(packages), wheels)


def releases(name: str, settings: IndexSettings) -> tuple[SdistRelease, ...]:
    """Return the source archives of a package, as ``offered`` does."""
    return offered(name, settings).sdists


def _newest(packages: Iterable[Package]) -> str:
    """Return the newest final release that is not yanked, with or without a source archive."""
    found = (as_version(one.version or "") for one in packages if not one.link.is_yanked)
    return str(max((one for one in found if one is not None and not one.is_prerelease), default=""))


def find_packages(name: str, settings: IndexSettings) -> Sequence[Package]:
    """Return all files of a package on the indexes, empty where none has it; HostError where one can't be asked."""
    with _complaints() as said, network_errors(f"the package index can't be asked for {name}"):
        packages = _find(name, settings)
    failed = [text for text in said if _matters(text)]
    if not packages and failed:
        raise HostError(f"no index could be asked for {name}", why="; ".join(failed), hint=NETWORK_HINT)
    return packages


def _find(name: str, settings: IndexSettings) -> Sequence[Package]:
    from unearth import PackageFinder

    sources = _index_urls(settings), _reachable(settings.find_links)
    if not any(sources):  # unearth would ask its default index then, which no-index forbids
        return []
    with session(settings) as client:
        finder = PackageFinder(client, index_urls=sources[0], find_links=sources[1], ignore_compatibility=True)
        return list(finder.find_all_packages(name, allow_yanked=True))


def _index_urls(settings: IndexSettings) -> list[str]:
    if not settings.keeps_default:
        return list(settings.index_urls)
    from unearth import PackageFinder

    defaults = [source["url"] for source in PackageFinder().sources]
    return [*defaults, *settings.index_urls]


def _reachable(find_links: Iterable[str]) -> list[str]:
    """Return the places that exist. pip ignores a folder that does not exist, and unearth would fail."""
    return [place for place in find_links if _is_remote(place) or Path(local_path(place)).exists()]


def _is_remote(place: str) -> bool:
    return "://" in place and not place.startswith("file:")


def local_path(place: str) -> str:
    """Return the path of a ``file:`` URL, or the text itself where it is a path already."""
    return unquote(urlsplit(place).path) if place.startswith("file:") else place


@contextmanager
def session(settings: IndexSettings) -> Iterator[Any]:
    """Open an HTTP client with the settings' credentials, certificates and time limit, and the process's proxies."""
    import ssl

    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers.sync import PyPIClient

    verify: ssl.SSLContext | bool = True
    if settings.cert:
        try:
            verify = ssl.create_default_context(cafile=settings.cert)
        except OSError as error:
            raise HostError(
                f"the certificates in {settings.cert} can't be read",
                why=str(error),
                hint="correct PIP_CERT, or cert in pip's configuration",
            ) from error
    auth = MultiDomainBasicAuth(prompting=False, index_urls=settings.index_urls)
    with PyPIClient(
        trusted_hosts=settings.trusted_hosts, verify=verify, timeout=settings.timeout, follow_redirects=True
    ) as client:
        client.auth = auth
        yield client


@contextmanager
def network_errors(what: str) -> Iterator[None]:
    """Turn a failed connection, a time-out or a bad answer into a HostError."""
    try:
        yield
    except AttnforgeError:
        raise
    except Exception as error:
        from unearth.preparer import HTTPErrors

        if not isinstance(error, HTTPErrors):
            raise
        why = redact(" ".join(filter(None, (_url_of(error), str(error) or type(error).__name__))))
        raise HostError(what, why=why, hint=_SOURCE_HINT) from error


def _url_of(error: Exception) -> str:
    """Return the URL that a request was for, and a colon; "" where the error does not say or has it in its text."""
    try:
        url = str((getattr(error, "request", None) and error.request.url) or "")  # type: ignore[attr-defined]
    except RuntimeError:  # an error of httpx without a request
        url = ""
    return f"{url}:" if url and url not in str(error) else ""


class _Collector(logging.Handler):
    """Keeps unearth's log: that is where it reports an index that failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(redact(record.getMessage()))


@contextmanager
def _complaints() -> Iterator[list[str]]:
    logger = logging.getLogger("unearth")
    collector = _Collector()
    logger.addHandler(collector)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)


def _matters(complaint: str) -> bool:
    """Say whether the index failed; 404 is how an index says that it does not have a package."""
    return "Error(404)" not in complaint


def _nothing(name: str, has_wheels: bool, complaints: list[str], suggestions: Sequence[str]) -> AttnforgeError:
    if has_wheels:
        return RequestError(
            f"{name} has wheels on the package index but no source archive",
            hint="download its source and build that: attnforge build ./FOLDER",
        )
    if complaints:
        return HostError(f"no index could be asked for {name}", why="; ".join(complaints), hint=_SOURCE_HINT)
    near = f"did you mean {', '.join(suggestions)}? " if suggestions else ""
    return RequestError(
        f"no package index that pip or uv is configured with has {name}",
        hint=f"{near}`attnforge packages` lists what is known; a folder or an archive builds too",
    )


def _release(package: Package) -> SdistRelease:
    link = package.link
    return SdistRelease(
        version=str(package.version),
        filename=link.filename,
        url=link.url_without_fragment,
        sha256=_sha256(link),
        requires_python=link.requires_python or "",
        yanked=link.is_yanked,
    )


def _sha256(link: Link) -> str:
    stated = (link.hash_option or {}).get("sha256", [""])[0]
    if stated or not link.is_file:
        return stated
    return file_sha256(link.file_path)  # a folder of archives states no hashes


def _is_version(text: str | None) -> bool:
    return bool(text) and as_version(text or "") is not None


def _newest_last(release: SdistRelease) -> tuple[Any, str]:
    from packaging.version import Version

    return Version(release.version), release.filename
