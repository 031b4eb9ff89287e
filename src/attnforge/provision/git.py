"""The git program: found, new enough, and run so that the user's settings do not change the files of a checkout.

The user's credentials, proxies, certificates and rewritten URLs are used: git reads its configuration as always.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.process import Command, Outcome, Runner, base_environment, redact, run
from attnforge.provision.giturl import PROTOCOLS, GitAddress

MINIMUM = (2, 31)
"""The first git that reads configuration from its environment (GIT_CONFIG_COUNT), where no process list shows it."""

LOOK_SECONDS = 120.0
FETCH_SECONDS = 3600.0

# The user's GIT_ variables that say how to reach a server. Others name another repository, or add traces to the output.
_KEEP = re.compile(
    r"GIT_(?:ASKPASS|SSH|SSH_COMMAND|SSH_VARIANT|SSL_\w+|HTTP_\w+|PROXY_\w+|EXEC_PATH"
    r"|CONFIG_(?:GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))"
)
_ALSO = ("PATH", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "GNUPGHOME")

_CONFIG = (
    ("core.autocrlf", "false"),
    ("core.eol", "lf"),
    ("core.symlinks", "true"),
    ("core.fileMode", "true"),
    ("core.attributesFile", "/dev/null"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.sparseCheckout", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    # No process of git stays in the background after a command, where it would hold files of the mirror.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # A connection that stalls is given up.
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
)

# The user's own choice of submodules would leave out those of submodules, without an error.
_ALL_SUBMODULES = (("submodule.active", "."), ("submodule.propagateBranches", "false"))


@dataclass(frozen=True, slots=True)
class Git:
    """A git program of this machine, and the environment to run it in."""

    program: str
    environ: Mapping[str, str]
    runner: Runner = run

    def __call__(
        self, arguments: Sequence[str], folder: Path, address: GitAddress, timeout: float = LOOK_SECONDS
    ) -> str:
        """Run a git command in ``folder`` and return its output; raise the error of ``failure`` where it fails."""
        outcome = self.attempt(arguments, folder, address, timeout)
        if not outcome.ok:
            raise failure(address, outcome.output)
        return outcome.output

    def attempt(
        self, arguments: Sequence[str], folder: Path, address: GitAddress, timeout: float = LOOK_SECONDS
    ) -> Outcome:
        """Run a command that may fail; HostError where git is missing or does not answer within ``timeout`` seconds."""
        return self._run(arguments, folder, address, timeout, git_environment(self.environ, address))

    def attempt_submodules(self, arguments: Sequence[str], work_tree: Path, address: GitAddress) -> Outcome:
        """Run a command that reads .gitmodules, which may fail.

        The configuration is on the command line, too: GIT_CONFIG_COUNT is one of the variables that git may not pass
        on to a submodule (git rev-parse --local-env-vars). A repository from the network may not name a folder of this
        machine as its submodule.
        """
        configuration = (*_configuration(address), *_ALL_SUBMODULES)
        settings = (word for key, value in configuration for word in ("-c", f"{key}={value}"))
        protocols = PROTOCOLS if address.is_local else [name for name in PROTOCOLS if name != "file"]
        environ = {**git_environment(self.environ, address), "GIT_ALLOW_PROTOCOL": ":".join(protocols)}
        return self._run((*settings, *arguments), work_tree, address, FETCH_SECONDS, environ)

    def _run(
        self, arguments: Sequence[str], folder: Path, address: GitAddress, timeout: float, environ: Mapping[str, str]
    ) -> Outcome:
        try:
            outcome = self.runner(Command((self.program, *arguments), folder, environ, timeout))
        except (FileNotFoundError, PermissionError) as error:
            raise _missing(str(error)) from error
        if outcome.timed_out:
            raise _offline(address, f"git gave no answer in {timeout:.0f} seconds")
        return outcome


def find_git(environ: Mapping[str, str], runner: Runner = run) -> Git:
    """Return the git of PATH; HostError where there is none, or one that is too old."""
    program = shutil.which("git", path=environ.get("PATH", ""))
    if program is None:
        raise _missing("PATH has no git")
    try:
        printed = runner(Command((program, "--version"), Path("/"), base_environment(environ), LOOK_SECONDS)).output
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(str(error)) from error
    found = re.search(r"git version (\d+)\.(\d+)", printed)
    if found is None or tuple(map(int, found.groups())) < MINIMUM:
        raise HostError(
            f"{program} is too old: {printed.strip() or 'it does not state its version'}",
            why=f"git {MINIMUM[0]}.{MINIMUM[1]} is the first that reads configuration from its environment",
            hint="apt-get install git (dnf install git), or give a folder or archive: --source PATH",
        )
    return Git(program, environ, runner)


def _missing(why: str) -> HostError:
    return HostError(
        "there is no git program",
        why=why,
        hint="apt-get install git (dnf install git), or give a folder or archive: --source PATH",
    )


def git_environment(environ: Mapping[str, str], address: GitAddress) -> dict[str, str]:
    """Return the environment of a git command for that repository: no prompt, no hook, no conversion of files."""
    kept = {key: value for key, value in base_environment(environ).items() if not key.startswith("GIT_")}
    kept |= {key: value for key, value in environ.items() if key in _ALSO or _KEEP.fullmatch(key)}
    count = kept.get("GIT_CONFIG_COUNT", "0")
    first = int(count) if count.isdecimal() else 0
    config = _configuration(address)
    for number, (key, value) in enumerate(config, first):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **kept,
        **_secrets(address),
        "GIT_CONFIG_COUNT": str(first + len(config)),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "GIT_ATTR_NOSYSTEM": "1",
        "LC_ALL": "C",
    }


# Answers git's question for a password: what it prints comes from the environment, so no command line shows it.
_HELPER = (
    """!f() { test "$1" = get && """
    """printf 'username=%s\\npassword=%s\\n' "$ATTNFORGE_GIT_NAME" "$ATTNFORGE_GIT_WORD"; }; f"""
)


def _configuration(address: GitAddress) -> tuple[tuple[str, str], ...]:
    return (*_CONFIG, *_credentials(address))


def _credentials(address: GitAddress) -> tuple[tuple[str, str], ...]:
    """Have git give the credentials of the URL to its host and to no other."""
    if not address.credentials:
        return ()
    parts = urlsplit(address.url)
    key = f"credential.{parts.scheme}://{parts.netloc}.helper"
    return (
        (key, ""),
        (key, _HELPER),
    )  # the empty one removes the user's own helpers, which would store these credentials


def _secrets(address: GitAddress) -> dict[str, str]:
    name, _, word = address.credentials.partition(":")
    return {"ATTNFORGE_GIT_NAME": unquote(name), "ATTNFORGE_GIT_WORD": unquote(word)} if name or word else {}


_OFFLINE = re.compile(
    r"could not resolve (?:host|proxy)|name or service not known|temporary failure in name resolution"
    r"|connection (?:refused|reset|timed out|closed)|network is unreachable|no route to host|couldn't connect"
    r"|failed to connect|timed out|operation too slow|early eof|rpc failed|the remote end hung up|unexpected disconnect"
    r"|ssl certificate|ssl connect|ssl_error|gnutls_handshake|certificate verif|tls connect"
    r"|requested url returned error: 5\d\d",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"authentication failed|could not read (?:username|password)|permission denied|terminal prompts disabled"
    r"|host key verification failed|requested url returned error: (?:401|403)|access denied|not authorized",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"does not appear to be a git repository|repository .*not found|not found|does not exist|no such file"
    r"|requested url returned error: (?:404|410)|does not look like a v\d bundle|bad bundle|invalid gitfile",
    re.IGNORECASE,
)
_PREREQUISITES = re.compile(r"lacks these prerequisite commits", re.IGNORECASE)


def failure(address: GitAddress, output: str) -> AttnforgeError:
    """Return the error that git's messages mean."""
    why = redact("; ".join(_told(output)))
    if "dubious ownership" in output:
        return HostError(
            f"git does not read {address.path}: it belongs to another user",
            why="a repository's settings can run programs, so git needs to know that you trust it",
            hint=f"git config --global --add safe.directory {_repository(address.path)}",
        )
    if re.search(r"no space left on device|disk quota exceeded|read-only file system", output, re.IGNORECASE):
        return HostError(f"{address} could not be written to the cache", why=why, hint="set ATTNFORGE_CACHE elsewhere")
    if "transport '" in output and "not allowed" in output:
        return RequestError(f"git may not use that protocol for {address.url}", why=why, hint="see url.*.insteadOf")
    if _PREREQUISITES.search(output):
        return RequestError(
            f"{address.path.name} has a part of a history and not the whole",
            why=why,
            hint=f"git bundle create {address.path.name} --all",
        )
    if _DENIED.search(output):
        return _denied(address, why)
    if _OFFLINE.search(output) and not address.is_local:
        return _offline(address, why)
    if _ABSENT.search(output):
        return RequestError(
            f"there is no git repository at {redact(address.url)}",
            why=why,
            hint=f"git ls-remote '{address.url}' has to list its tags and branches",
        )
    return HostError(f"git failed at {redact(address.url)}", why=why, hint=f"git ls-remote '{address.url}'")


def _told(output: str) -> list[str]:
    """Return the lines with errors, at most three; else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(?:fatal|error|remote|ssh): ", line)]
    return (errors or lines[-1:])[:3]


def _repository(path: Path) -> Path:
    return path / ".git" if (path / ".git").exists() else path


def _denied(address: GitAddress, why: str) -> HostError:
    return HostError(
        f"{redact(address.url)} refuses access: it is private, or it does not exist",
        why=why,
        hint=f"give git credentials (a helper, ~/.netrc, an ssh key) until this works: git ls-remote '{address.url}'",
    )


def _offline(address: GitAddress, why: str) -> HostError:
    return HostError(
        f"{redact(address.url)} can't be reached",
        why=why,
        hint="check the network and the proxy, or use a clone or bundle that you have: "
        f"--source git+file:///FOLDER@{address.ref or 'COMMIT'}",
    )
