"""How uv is called, and what its failures become."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.process import Command, Outcome
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.uv import Uv, cache_setting, uv_arguments, uv_environment, uv_error


class Recorder:
    """A runner that notes what it is asked to run and answers the same each time."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.commands: list[Command] = []

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        self.commands.append(command)
        return self.outcome


SECRET = IndexSettings(
    index_urls=("https://u:secret@a.test/simple", "https://b.test/simple"),
    find_links=("/a, b", "https://u:secret@c.test/"),
    trusted_hosts=("a.test",),
    cert="/ca.pem",
    keeps_default=False,
    strategy="unsafe-best-match",
)


def test_indexes_go_by_environment() -> None:
    environment = uv_environment(SECRET, {})
    assert environment["UV_DEFAULT_INDEX"] == "https://u:secret@a.test/simple"
    assert environment["UV_INDEX"] == "https://b.test/simple"
    assert environment["UV_FIND_LINKS"] == "file:///a%2C%20b,https://u:secret@c.test/"
    assert environment["SSL_CERT_FILE"] == "/ca.pem"


def test_options_hold_no_secret() -> None:
    assert uv_arguments(SECRET) == ["--index-strategy", "unsafe-best-match", "--allow-insecure-host", "a.test"]


def test_nothing_configured_gives_uv_nothing() -> None:
    assert uv_arguments(IndexSettings()) == []
    assert uv_environment(IndexSettings(), {"HOME": "/h", "PATH": "/bin"}) == {"HOME": "/h", "UV_HTTP_TIMEOUT": "30"}


def test_further_indexes_leave_the_default() -> None:
    environment = uv_environment(IndexSettings(index_urls=("https://a.test",)), {})
    assert "UV_DEFAULT_INDEX" not in environment
    assert environment["UV_INDEX"] == "https://a.test"


def test_no_index_becomes_an_option() -> None:
    assert uv_arguments(IndexSettings(keeps_default=False)) == ["--no-index"]


@pytest.mark.parametrize("name", ["UV_TORCH_BACKEND", "UV_SYSTEM_PYTHON", "UV_PYTHON", "LD_PRELOAD", "CUDA_HOME"])
def test_variables_that_would_change_our_options_are_left_out(name: str) -> None:
    assert name not in uv_environment(IndexSettings(), {name: "x"})


@pytest.mark.parametrize("name", ["UV_CACHE_DIR", "HTTPS_PROXY", "UV_INDEX_INNER_PASSWORD", "UV_KEYRING_PROVIDER"])
def test_the_users_own_settings_are_kept(name: str) -> None:
    assert uv_environment(IndexSettings(), {name: "x"})[name] == "x"


def test_the_users_certificates_and_time_limit_count_more() -> None:
    environment = uv_environment(SECRET, {"SSL_CERT_FILE": "/own.pem", "UV_HTTP_TIMEOUT": "7"})
    assert (environment["SSL_CERT_FILE"], environment["UV_HTTP_TIMEOUT"]) == ("/own.pem", "7")


def test_install(tmp_path: Path) -> None:
    recorder = Recorder(Outcome(0, ""))
    Uv("/bin/uv", SECRET, {}, recorder).install(tmp_path / "python", ("a==1", "b"), "--torch-backend", "cu128")
    (command,) = recorder.commands
    assert command.argv[:5] == ("/bin/uv", "pip", "install", "--python", str(tmp_path / "python"))
    assert command.argv[-5:] == ("--torch-backend", "cu128", "--", "a==1", "b")
    assert "secret" not in " ".join(command.argv)
    assert command.timeout


def test_a_requirement_is_never_an_option(tmp_path: Path) -> None:
    recorder = Recorder(Outcome(0, ""))
    Uv("/bin/uv", IndexSettings(), {}, recorder).install_target(tmp_path / "site", ("--index-url=https://evil.test",))
    argv = recorder.commands[0].argv
    assert argv.index("--") < argv.index("--index-url=https://evil.test")


def test_freeze_takes_requirements_alone(tmp_path: Path) -> None:
    output = "warning: something\nninja==1.13.0\nthing @ file:///x\n\n"
    uv = Uv("/bin/uv", IndexSettings(), {}, Recorder(Outcome(0, output)))
    assert uv.freeze(tmp_path / "python") == ("ninja==1.13.0", "thing @ file:///x")


def test_uv_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="uv can't be started") as caught:
        Uv(str(tmp_path / "uv"), IndexSettings(), {}).venv(tmp_path / "venv", "3.12")
    assert caught.value.hint == "python -m pip install uv"


# What uv 0.13 prints for each fault, shortened.
FAULTS = [
    (
        "Using Python 3.12.1 environment at: v\nerror: No solution found when resolving dependencies\n  cause: Because "
        "there is no version of torch==2.7.99 and you require torch==2.7.99, your requirements are unsatisfiable.\n",
        RequestError,
        "no version of torch==2.7.99",
        "--torch",
    ),
    (
        "  × No solution found when resolving dependencies:\n  ╰─▶ Because torch==1.13.0 has no wheels with a matching "
        "Python ABI tag (e.g., `cp312`), ...\n",
        RequestError,
        "no wheels with a matching",
        "--python",
    ),
    (
        "error: Failed to fetch: https://u:secret@a.test/simple/six/\n  cause: tcp connect error\n  cause: Connection "
        "refused (os error 111)\n",
        HostError,
        "Connection refused",
        "PIP_INDEX_URL",
    ),
    (
        "error: Request failed after 3 retries in 7.1s\n  cause: dns error\n  cause: failed to lookup address\n",
        HostError,
        "dns error",
        "HTTPS_PROXY",
    ),
    (
        "error: No solution found when resolving dependencies\n  cause: Because six was not found in the package "
        "registry\nhint: An index URL (https://a.test) could not be queried due to a lack of valid authentication "
        "credentials (401 Unauthorized).\n",
        HostError,
        "401",
        "PIP_INDEX_URL",
    ),
    (
        "warning: Failed to hardlink files\nerror: Failed to install: numpy.whl\n  cause: failed to copy file: "
        "No space left on device (os error 28)\n",
        HostError,
        "No space left",
        "ATTNFORGE_CACHE",
    ),
    (
        "error: Failed to initialize cache at `/x`\n  cause: failed to create directory `/x`: Read-only file system "
        "(os error 30)\n",
        HostError,
        "Failed to initialize cache",
        "UV_CACHE_DIR",
    ),
    (
        "error: No interpreter found for Python 3.12 in managed installations\n\nhint: A managed Python download is "
        "available for Python 3.12, but Python downloads are set to 'never'\n",
        HostError,
        "No interpreter found",
        "uv python install SUBJECT",
    ),
    (
        "error: Request failed after 3 retries in 7.9s\n  cause: Failed to download `https://x/cpython-3.12.16.tar.gz`\n",
        HostError,
        "Failed to download",
        "apt install pythonSUBJECT pythonSUBJECT-dev",
    ),
    ("error: Hash mismatch for `six==1.17.0`\n", HostError, "Hash mismatch", "uv cache clean"),
    ("thread 'main' panicked\n", HostError, "panicked", "pip install -U uv"),
]


@pytest.mark.parametrize(("output", "kind", "why", "hint"), FAULTS, ids=[fault[2] for fault in FAULTS])
def test_faults(output: str, kind: type[AttnforgeError], why: str, hint: str) -> None:
    error = uv_error(Outcome(2, output), "SUBJECT")
    assert type(error) is kind
    assert why in error.why
    assert hint in error.hint
    assert "SUBJECT" in error.what
    assert not error.why.startswith(("Using", "warning"))


@pytest.mark.parametrize(
    ("environ", "moved"),
    [
        ({"HOME": "good"}, False),
        ({"HOME": "bad"}, True),
        ({"HOME": "bad", "XDG_CACHE_HOME": "good/deep/er"}, False),
        ({"HOME": "good", "XDG_CACHE_HOME": "bad"}, True),
        ({"HOME": "bad", "UV_CACHE_DIR": "anywhere"}, False),
    ],
)
def test_a_cache_that_cannot_be_written_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], moved: bool
) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    # As root, whom permissions do not stop, only a read-only file system says no.
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "bad")
    absolute = {key: str(tmp_path / value) for key, value in environ.items()}
    assert cache_setting(absolute, tmp_path / "ours") == ({"UV_CACHE_DIR": str(tmp_path / "ours")} if moved else {})


def test_a_time_out_is_told() -> None:
    assert isinstance(uv_error(Outcome(-9, "", timed_out=True), "x"), HostError)


@pytest.mark.parametrize(
    "output",
    [
        "error: Request failed after 3 retries\n  cause: Failed to fetch: `https://x.example/whl/cu128/torch/`\n",
        "DEBUG x\nerror: Failed to fetch\n"
        + "  cause: y\n" * 9
        + "  cause: `https://u:p@x.example/whl/cu128/torch/`\n",
    ],
)
def test_the_url_that_could_not_be_reached_is_named_and_no_other_way_out(output: str) -> None:
    error = uv_error(Outcome(2, output), "torch==2.11.0")
    assert "x.example/whl/cu128/torch/" in error.why
    assert "u:p" not in str(error)
    assert "folder" not in error.hint
