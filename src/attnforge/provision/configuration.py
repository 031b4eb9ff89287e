"""Reads how pip and uv are configured on this machine.

pip (its documentation, "Configuration", and pip 23.2's configuration.py): files in the order global, user, site,
PIP_CONFIG_FILE, then PIP_* variables, each overriding the one before; the command's own section over [global].
uv (its documentation, "Configuration files"): the user's uv.toml over the system's, and UV_* variables over both.
A project's own uv settings are not read: they are that project's, and attnforge runs uv in none.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from attnforge.errors import HostError
from attnforge.process import redact
from attnforge.provision.indexes import IndexSettings

_PIP_SECTIONS = ("global", "download", "install")
_TRUE = {"1", "true", "yes", "on", "y", "t"}
_DEFAULT_TIMEOUT = IndexSettings().timeout


@dataclass(frozen=True, slots=True)
class Places:
    """Where configuration files are: ``etc`` the system's folder, ``prefix`` the virtual environment's."""

    etc: Path = Path("/etc")
    prefix: Path = Path(sys.prefix)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source (pip's or uv's environment or files) says."""

    default: str = ""
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    no_index: bool = False


def read_settings(environ: Mapping[str, str], places: Places | None = None) -> IndexSettings:
    """Return the indexes that pip and uv would use together.

    The default index is the first that is named by uv's variables, pip's variables, uv's files, pip's files; further
    indexes, folders of archives and trusted hosts of both are united; no-index in either is kept. HostError for a
    configuration file that can't be understood.
    """
    places = places or Places()
    pip = {**_pip_files(environ, places), **_pip_environment(environ)}
    uv_tables = [] if _is_set(environ.get("UV_NO_CONFIG", "")) else _uv_tables(environ, places)
    layers = [_uv_environment_layer(environ), *(_uv_checked(table, environ) for table in uv_tables), _pip_layer(pip)]
    if _pip_environment(environ).get("index-url"):
        layers.insert(1, _Layer(default=pip["index-url"]))
    default = next((layer.default for layer in layers if layer.default), "")
    no_index = any(layer.no_index for layer in layers)
    for url in (default, *(url for layer in layers for url in layer.extra)):
        _check_url(url)
    for place in _united(layer.find_links for layer in layers):
        _check_find_links(place)
    extra = _united(layer.extra for layer in layers)
    return IndexSettings(
        index_urls=() if no_index else tuple(dict.fromkeys([*([default] if default else []), *extra])),
        find_links=_united(layer.find_links for layer in layers),
        trusted_hosts=_united(layer.trusted for layer in layers),
        cert=pip.get("cert", ""),
        keeps_default=not (default or no_index),
        timeout=_seconds(pip.get("timeout") or pip.get("default-timeout", "")),
        strategy=_strategy(pip, uv_tables, environ),
    )


def _check_url(url: str) -> None:
    """Raise HostError for an index that can't be asked: neither a URL with a host nor a folder, as pip takes them."""
    if url and not _has_host(url) and not url.startswith("file:/") and not Path(url).is_dir():
        raise HostError(
            f"the package index {redact(url)!r} is no URL",
            why="pip or uv is configured with it",
            hint="correct PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, UV_DEFAULT_INDEX or UV_INDEX, or the file that sets it: "
            "https://HOST/simple",
        )


def _check_find_links(place: str) -> None:
    """Raise HostError for a place of archives that is written as a URL and is none. A folder need not be there."""
    if "://" in place and not place.startswith("file:") and not _has_host(place):
        raise HostError(
            f"the place of archives {redact(place)!r} is no URL",
            why="pip or uv is configured with it",
            hint="correct PIP_FIND_LINKS or UV_FIND_LINKS, or the file that sets it: a folder, or https://HOST/PATH",
        )


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False


def _united(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))


def _strategy(pip: Mapping[str, str], uv_tables: list[dict[str, Any]], environ: Mapping[str, str]) -> str:
    """pip takes the best version of all its indexes; uv stops at the first that has the package, unless told."""
    chosen = environ.get("UV_INDEX_STRATEGY") or any(_uv_value(table, "index-strategy") for table in uv_tables)
    return "unsafe-best-match" if pip.get("extra-index-url") and not chosen else ""


def _seconds(text: str) -> float:
    try:
        return max(float(text), 1.0)
    except ValueError:
        return _DEFAULT_TIMEOUT


def _is_set(text: str) -> bool:
    return text.strip().lower() in _TRUE


def _absolute(place: str, base: Path | None = None) -> str:
    """Return a place of archives that means the same in every folder."""
    if "://" in place or place.startswith("file:"):
        return place
    return str((base or Path.cwd()) / Path(place).expanduser())


# pip


def _pip_layer(pip: Mapping[str, str]) -> _Layer:
    return _Layer(
        default=pip.get("index-url", ""),
        extra=tuple(pip.get("extra-index-url", "").split()),
        find_links=tuple(_absolute(place) for place in pip.get("find-links", "").split()),
        trusted=tuple(pip.get("trusted-host", "").split()),
        no_index=_is_set(pip.get("no-index", "")),
    )


def _pip_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in environ.items()
        if key.startswith("PIP_") and value
    }


def _pip_files(environ: Mapping[str, str], places: Places) -> dict[str, str]:
    sections: dict[str, dict[str, str]] = {name: {} for name in _PIP_SECTIONS}
    for path in _pip_paths(environ, places):
        for name, values in _pip_file(path).items():
            sections.setdefault(name, {}).update(values)
    return {key: value for name in _PIP_SECTIONS for key, value in sections[name].items()}


def _pip_paths(environ: Mapping[str, str], places: Places) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    shared = [folder / "pip" / "pip.conf" for folder in _system_folders(environ, places)]
    own = [home / ".pip" / "pip.conf", _user_folder(environ) / "pip" / "pip.conf"]
    if named and Path(named).exists():
        own = []  # pip reads the named file in place of the user's
    last = [Path(named)] if named else []
    return [*shared, places.etc / "pip.conf", *own, places.prefix / "pip.conf", *last]


def _system_folders(environ: Mapping[str, str], places: Places) -> list[Path]:
    named = environ.get("XDG_CONFIG_DIRS", "")
    return [Path(folder) for folder in named.split(os.pathsep) if folder] or [places.etc / "xdg"]


def _user_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config")


def _pip_file(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, "pip", str(error)) from error
    return {
        section: {key.removeprefix("--").replace("_", "-"): value for key, value in parser.items(section)}
        for section in parser.sections()
    }


def _unreadable(path: Path, tool: str, why: str) -> HostError:
    return HostError(f"{tool}'s configuration {path} can't be read", why=why, hint=f"correct or remove {path}")


# uv


def _uv_environment_layer(environ: Mapping[str, str]) -> _Layer:
    extra = f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}".split()
    places = re.split(r",", environ.get("UV_FIND_LINKS", ""))
    return _Layer(
        default=_named(environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL", ""), environ),
        extra=tuple(_named(entry, environ) for entry in extra),
        find_links=tuple(_absolute(place.strip()) for place in places if place.strip()),
        trusted=tuple(environ.get("UV_INSECURE_HOST", "").split()),
    )


def _named(entry: str, environ: Mapping[str, str]) -> str:
    """Return the URL of ``name=url`` with the credentials that uv takes from UV_INDEX_NAME_USERNAME and _PASSWORD."""
    match = re.match(r"(?P<name>[\w.-]+)=(?P<url>.+)", entry)
    return _with_credentials(match["url"], match["name"], environ) if match else entry


def _with_credentials(url: str, name: str, environ: Mapping[str, str]) -> str:
    variable = "UV_INDEX_" + re.sub(r"\W", "_", name).upper()
    user, password = (environ.get(f"{variable}_{kind}", "") for kind in ("USERNAME", "PASSWORD"))
    parts = urlsplit(url)
    if "@" in parts.netloc or not (user or password):
        return url
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"))


def _uv_tables(environ: Mapping[str, str], places: Places) -> list[dict[str, Any]]:
    """Return the tables of uv's files, the one that counts most first."""
    if environ.get("UV_CONFIG_FILE"):
        paths = [Path(environ["UV_CONFIG_FILE"])]
    else:
        shared = [folder / "uv" / "uv.toml" for folder in _system_folders(environ, places)]
        system = next((path for path in [*shared, places.etc / "uv" / "uv.toml"] if path.is_file()), None)
        paths = [_user_folder(environ) / "uv" / "uv.toml", *([system] if system else [])]
    return [{**_uv_file(path), "folder": path.parent, "file": path} for path in paths if path.is_file()]


def _uv_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, "uv", str(error)) from error


def _uv_value(table: Mapping[str, Any], key: str) -> Any:
    return table.get("pip", {}).get(key) or table.get(key)


def _uv_checked(table: Mapping[str, Any], environ: Mapping[str, str]) -> _Layer:
    """Return what a file of uv's says; HostError where a value has another type than uv takes."""
    try:
        layer = _uv_layer(table, environ)
        texts = (layer.default, *layer.extra, *layer.find_links, *layer.trusted)
        if all(isinstance(text, str) for text in texts):
            return layer
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise _unreadable(table["file"], "uv", "a setting of indexes has another type than uv takes")


def _uv_layer(table: Mapping[str, Any], environ: Mapping[str, str]) -> _Layer:
    indexes = [entry for entry in table.get("index", []) if not entry.get("explicit")]
    urls = [
        (_with_credentials(entry["url"], entry.get("name", ""), environ), bool(entry.get("default")))
        for entry in indexes
    ]
    return _Layer(
        default=next((url for url, default in urls if default), "") or _uv_value(table, "index-url") or "",
        extra=(*(url for url, default in urls if not default), *(_uv_value(table, "extra-index-url") or ())),
        find_links=tuple(_absolute(place, table["folder"]) for place in _uv_value(table, "find-links") or ()),
        trusted=tuple(table.get("allow-insecure-host", ())),
        no_index=bool(_uv_value(table, "no-index")),
    )
