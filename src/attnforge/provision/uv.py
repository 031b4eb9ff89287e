"""Runs uv with the indexes that pip has, and says in our errors what went wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.process import Command, Outcome, Runner, base_environment, redact, run
from attnforge.provision.indexes import NETWORK_HINT, IndexSettings

_HOUR = 3600.0
_DROPPED = {"UV_TORCH_BACKEND", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"}


def uv_arguments(settings: IndexSettings) -> list[str]:
    """Return the options that go with every install; none of them is secret, see ``uv_environment``."""
    arguments = []
    if not (settings.index_urls or settings.keeps_default):
        arguments.append("--no-index")
    if settings.strategy:
        arguments += ["--index-strategy", settings.strategy]
    for host in settings.trusted_hosts:
        arguments += ["--allow-insecure-host", host]
    return arguments


def uv_environment(settings: IndexSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for uv: what a child needs of ours, and the settings' indexes.

    uv does not read pip's configuration, so the indexes are handed over. They go by environment and not by option,
    since they may hold credentials and every user of a machine can read another's command lines. Variables that
    would change what our own options mean are left out.
    """
    kept = {key: value for key, value in base_environment(environ).items() if key not in _DROPPED}
    urls = [_word(url) for url in settings.index_urls]
    if not settings.keeps_default and urls:
        kept["UV_DEFAULT_INDEX"] = urls.pop(0)
    handed = {
        "UV_INDEX": " ".join(urls),
        "UV_FIND_LINKS": ",".join(_word(place) for place in settings.find_links),
    }
    kept.update({key: value for key, value in handed.items() if value})
    if settings.cert:
        kept.setdefault("SSL_CERT_FILE", settings.cert)
    kept.setdefault("UV_HTTP_TIMEOUT", str(max(int(settings.timeout), 30)))  # 30 seconds is uv's own default
    return kept


def _word(place: str) -> str:
    """Return a path or URL as one word: uv splits its lists at spaces and commas."""
    text = place if "://" in place or place.startswith("file:") else Path(place).as_uri()
    return text.replace(" ", "%20").replace(",", "%2C")


def cache_setting(environ: Mapping[str, str], fallback: Path) -> dict[str, str]:
    """Return the setting that moves uv's cache to ``fallback`` where its own can't be written: a read-only home.

    Its own is shared with the user's other work, so it is left where it is if it can be used.
    """
    if environ.get("UV_CACHE_DIR"):
        return {}
    home = Path(environ.get("HOME") or Path.home())
    own = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "uv"
    there = next(folder for folder in (own, *own.parents) if folder.exists())
    return {} if os.access(there, os.W_OK | os.X_OK) else {"UV_CACHE_DIR": str(fallback)}


@dataclass(frozen=True, slots=True)
class Uv:
    """The uv program of this machine and how to call it. ``environ`` is the environment that attnforge was run in."""

    program: str
    settings: IndexSettings
    environ: Mapping[str, str]
    runner: Runner = run

    def venv(self, folder: Path, python: str, *options: str) -> None:
        """Make a virtual environment with the interpreter ``python`` (a path, or a version to be found or fetched)."""
        self._do(("venv", "--no-project", "--python", python, *options, str(folder)), folder.parent, python)

    def install(self, into: Path, requirements: tuple[str, ...], *options: str) -> None:
        """Install requirements into the environment of the interpreter ``into``."""
        self._install(("--python", str(into)), into.parent, requirements, options)

    def install_target(self, folder: Path, requirements: tuple[str, ...], *options: str) -> None:
        """Install requirements into a plain folder, which is no environment."""
        self._install(("--python", sys.executable, "--target", str(folder)), folder.parent, requirements, options)

    def freeze(self, python: Path) -> tuple[str, ...]:
        """Return what is installed with an interpreter, as exact requirements."""
        outcome = self._do(("pip", "freeze", "--quiet", "--python", str(python)), python.parent, str(python))
        return tuple(line for line in outcome.output.splitlines() if "==" in line or " @ " in line)

    def _install(
        self, where: tuple[str, ...], cwd: Path, requirements: tuple[str, ...], options: tuple[str, ...]
    ) -> None:
        shared = ("--no-progress", *uv_arguments(self.settings), *options)
        self._do(("pip", "install", *where, *shared, "--", *requirements), cwd, ", ".join(requirements))

    def _do(self, arguments: tuple[str, ...], cwd: Path, subject: str) -> Outcome:
        environment = uv_environment(self.settings, self.environ)
        command = Command((self.program, *arguments), cwd, environment, timeout=_HOUR)
        try:
            outcome = self.runner(command)
        except (FileNotFoundError, PermissionError) as error:
            raise HostError(
                f"uv can't be started: {self.program}", why=str(error), hint="python -m pip install uv"
            ) from error
        if not outcome.ok:
            raise uv_error(outcome, subject)
        return outcome


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: re.Pattern[str]
    kind: type[AttnforgeError]
    what: str
    hint: str


def _cause(pattern: str, kind: type[AttnforgeError], what: str, hint: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), kind, what, hint)


# The first that matches counts. Texts are those of uv 0.13 for each fault, provoked one by one.
_CAUSES = (
    _cause(
        r"no space left on device|disk quota exceeded|os error (?:28|122)\b",
        HostError,
        "no space left to install {subject}",
        "free some space, or set ATTNFORGE_CACHE and UV_CACHE_DIR to folders on another disk",
    ),
    _cause(
        r"failed to initialize cache|read-only file system|permission denied|os error (?:13|30)\b",
        HostError,
        "uv can't write where it installs {subject}",
        "set UV_CACHE_DIR and ATTNFORGE_CACHE to folders that this user can write",
    ),
    _cause(
        r"no interpreter found|no download found|python downloads are|failed to download `[^`]*cpython",
        HostError,
        "there is no Python interpreter {subject} here and none could be fetched",
        "uv python install {subject}   (or: apt install python{subject} python{subject}-dev python{subject}-venv)",
    ),
    _cause(
        r"hash mismatch",
        HostError,
        "an index delivered a file with a wrong hash for {subject}",
        "uv cache clean, then check the index or mirror that pip and uv are configured with",
    ),
    _cause(
        r"request failed|failed to fetch|error sending request|dns error|connection (?:refused|reset)|timed? ?out"
        r"|http status|certificate|could not be queried",
        HostError,
        "the network failed while installing {subject}",
        NETWORK_HINT,
    ),
    _cause(
        r"no solution found|was not found in the package registry|failed to parse|unsatisfiable",
        RequestError,
        "no such combination of packages: {subject}",
        "choose another version with --torch, --python or --cuda: attnforge plan --explain shows which exist",
    ),
)
_URL = re.compile(r"https?://[^\s`'\"()]+")
_UNKNOWN = _cause(
    "", HostError, "uv failed while installing {subject}", "python -m pip install -U uv, and run the same command again"
)


def uv_error(outcome: Outcome, subject: str) -> AttnforgeError:
    """Return the error for a failed call of uv: its class by the cause, uv's own first lines as the reason."""
    if outcome.timed_out:
        return HostError(f"uv took more than an hour for {subject}", hint=NETWORK_HINT)
    cause = next((cause for cause in _CAUSES if cause.pattern.search(outcome.output)), _UNKNOWN)
    subject = redact(subject)
    why = _reason(outcome.output)
    unreached = [url for url in _URL.findall(redact(outcome.output)) if url not in why]
    if cause.hint == NETWORK_HINT and unreached:
        why = f"{unreached[-1]} could not be reached: {why}"
    return cause.kind(cause.what.format(subject=subject), why=why, hint=cause.hint.format(subject=subject))


def _reason(output: str) -> str:
    """Return what uv says of the error: from its line ``error:`` on, hints too, without the tracing before."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if re.match(r"error:|[x×]\s", line)), 0)
    return " ".join(lines[start : start + 6])
