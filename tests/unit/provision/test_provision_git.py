"""Git addresses, git's environment and messages, and what is read of its lists: no git program is run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.model.host import Host
from attnforge.model.plan import SourcePin
from attnforge.model.request import Request
from attnforge.paths import Folders
from attnforge.process import Command, Outcome
from attnforge.provision.git import Git, failure, find_git, git_environment
from attnforge.provision.gitrefs import resolve_ref
from attnforge.provision.giturl import GitAddress, check_ref, parse_address
from attnforge.provision.source import empty_submodules
from attnforge.workflow import machine as machines
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan
from attnforge.workflow.sources.git import at_reference, git_wish
from attnforge.workflow.sources.kinds import Commit

COMMIT = "b7d29fb3b79f0b78b1c369a52aaa6628dabfb0d7"
ANOTHER = "0123456789abcdef0123456789abcdef01234567"
UPSTREAM = "https://github.com/Dao-AILab/flash-attention"

# --- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("git+https://h.org/o/r@v1.0", GitAddress("https://h.org/o/r", "v1.0")),
        ("git+https://h.org/o/r.git", GitAddress("https://h.org/o/r.git")),
        ("git+https://h.org:8443/o/r@feature/x", GitAddress("https://h.org:8443/o/r", "feature/x")),
        ("git+ssh://git@h.org/o/r@v1", GitAddress("ssh://git@h.org/o/r", "v1")),
        ("git+ssh://git@h.org/o/r", GitAddress("ssh://git@h.org/o/r")),
        ("git+https://me:tok@h.org/o/r@v1", GitAddress("https://h.org/o/r", "v1", credentials="me:tok")),
        ("git+https://tok@h.org/o/r", GitAddress("https://h.org/o/r", credentials="tok")),
        ("git+file:///srv/a%20b/r@v1", GitAddress("file:///srv/a%20b/r", "v1")),
        ("git+file://localhost/srv/r", GitAddress("file:///srv/r")),
        ("git+https://h.org/o/r@v1#subdirectory=hopper/", GitAddress("https://h.org/o/r", "v1", "hopper")),
        ("git+https://h.org/o/r#subdirectory=a/b&egg=x", GitAddress("https://h.org/o/r", "", "a/b", "x")),
        ("git+https://h.org/o/r@a%20b", None),
    ],
)
def test_addresses_are_read_as_pip_reads_them(text: str, address: GitAddress | None) -> None:
    if address is None:
        with pytest.raises(RequestError):
            parse_address(text)
    else:
        assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "git+ext::sh -c id",
        "git+ext::sh",
        "git+ext://sh",
        "git+git://h.org/o/r",
        "git+ftp://h.org/o/r",
        "git+/srv/r",
        "git+git@h.org:o/r",
        "git+https://-oProxyCommand=id/o/r",
        "git+ssh://-oProxyCommand=id/o/r",
        "git+ssh://-l@h.org/o/r",
        "git+ssh://h.org/-o/r",
        "git+ssh://me:word@h.org/o/r",
        "git+https://h.org",
        "git+https://h.org/",
        "git+https:///o/r",
        "git+https://:80/o/r",
        "git+https://[bad/o/r",
        "git+file://elsewhere/srv/r",
        "git+file:srv/r",
        "git+https://h.org/o/r@",
        "git+https://h.org/o/r@--upload-pack=id",
        "git+https://h.org/o/r@v1:refs/heads/x",
        "git+https://h.org/o/r#subdirectory=../x",
        "git+https://h.org/o/r#subdirectory=/x",
        "git+https://h.org/o/r#subdirectory=-x",
        "git+https://h.org/o/r#branch=x",
        "git+https://h.org/o/r#x",
        "git+https://h.org/o/\nr",
    ],
)
def test_what_is_not_safe_to_give_to_git_is_refused_before_git_runs(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_address(text)
    assert caught.value.hint


def test_an_error_about_an_address_does_not_tell_its_password() -> None:
    with pytest.raises(RequestError) as caught:
        parse_address("git+ftp://me:secret@h.org/o/r")
    assert "secret" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_that_git_reads_as_one_or_an_error(text: str) -> None:
    try:
        address = parse_address(f"git+{text}")
    except RequestError:
        return
    assert re.match(r"(https|http|ssh|file)://", address.url)
    assert not address.ref.startswith("-")
    assert "\n" not in address.url + address.ref


@given(st.text(min_size=1))
def test_a_ref_is_never_an_option_a_pattern_or_a_refspec(text: str) -> None:
    try:
        ref = check_ref(text)
    except RequestError:
        return
    assert not set(ref) & set("~^:?*[\\ \n\t")
    assert not ref.startswith("-")
    assert ".." not in ref


@pytest.mark.parametrize("ref", ["v1.0", "main", "feature/x", COMMIT, "2024.1-rc_2", "refs/pull/12/head", "a@b", ""])
def test_usual_refs_are_taken(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    ("url", "title"),
    [("https://h/o/r.git", "r"), ("file:///s/r.bundle", "r"), ("https://h/o/r/", "r"), ("file:///s/a%20b", "a b")],
)
def test_a_repository_is_called_by_the_last_part_of_its_path(url: str, title: str) -> None:
    assert GitAddress(url).title == title


# --- the program and its environment

ADDRESS = GitAddress("https://h.org/o/r", "v1", credentials="me:tok")


def test_nothing_of_the_users_environment_changes_what_git_does() -> None:
    told = {
        "GIT_DIR": "/x",
        "GIT_INDEX_FILE": "/x",
        "GIT_TRACE": "1",
        "GIT_ALLOW_PROTOCOL": "ext",
        "GIT_TERMINAL_PROMPT": "1",
        "LD_PRELOAD": "/x.so",
        "LANGUAGE": "de",
    }
    made = git_environment({**told, "PATH": "/bin", "HOME": "/home/me", "GIT_SSH_COMMAND": "ssh -i key"}, ADDRESS)
    assert made.keys().isdisjoint({"GIT_DIR", "GIT_INDEX_FILE", "GIT_TRACE", "LD_PRELOAD", "LANGUAGE"})
    assert made["GIT_ALLOW_PROTOCOL"] == "https:ssh:http:file"
    assert made["GIT_TERMINAL_PROMPT"] == "0"
    assert (made["HOME"], made["GIT_SSH_COMMAND"], made["PATH"]) == ("/home/me", "ssh -i key", "/bin")


def config(environ: dict[str, str]) -> dict[str, str]:
    count = int(environ["GIT_CONFIG_COUNT"])
    return {environ[f"GIT_CONFIG_KEY_{n}"]: environ[f"GIT_CONFIG_VALUE_{n}"] for n in range(count)}


def test_configuration_of_the_users_environment_stays_and_ours_comes_after_it() -> None:
    theirs = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.proxy", "GIT_CONFIG_VALUE_0": "p"}
    made = git_environment(theirs, ADDRESS)
    assert config(made)["http.proxy"] == "p"
    assert config(made)["core.autocrlf"] == "false"
    assert config(made)["core.hooksPath"] == "/dev/null"


def test_credentials_go_to_their_host_alone_and_never_into_a_command_line() -> None:
    seen: list[Command] = []

    def runner(command: Command, log: IO[str] | None = None) -> Outcome:
        seen.append(command)
        return Outcome(0, "")

    Git("git", {}, runner)(["ls-remote", "--", ADDRESS.url], Path("/"), ADDRESS)
    (command,) = seen
    assert "tok" not in " ".join(command.argv)
    assert "tok" not in str(config(dict(command.env)))
    assert "credential.https://h.org.helper" in config(dict(command.env))
    assert (command.env["ATTNFORGE_GIT_NAME"], command.env["ATTNFORGE_GIT_WORD"]) == ("me", "tok")


@pytest.mark.parametrize("printed", ["git version 2.25.1\n", "git version 1.8.3.1\n", "zsh: no git\n"])
def test_a_git_that_is_too_old_is_refused(tmp_path: Path, printed: str) -> None:
    program(tmp_path)
    with pytest.raises(HostError, match="too old") as caught:
        find_git({"PATH": str(tmp_path)}, lambda *_: Outcome(0, printed))
    assert "git" in caught.value.hint


@pytest.mark.parametrize(
    "printed", ["git version 2.31.0\n", "git version 2.39.5 (Apple Git-154)\n", "git version 3.0\n"]
)
def test_a_git_that_is_new_enough_is_taken(tmp_path: Path, printed: str) -> None:
    found = program(tmp_path)
    assert find_git({"PATH": str(tmp_path)}, lambda *_: Outcome(0, printed)).program == str(found)


def program(folder: Path) -> Path:
    found = folder / "git"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    return found


def test_a_machine_without_git_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no git program") as caught:
        find_git({"PATH": str(tmp_path)})
    assert "apt-get install git" in caught.value.hint


def test_a_git_that_went_away_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no git program"):
        Git(str(tmp_path / "git"), {})(["--version"], tmp_path, ADDRESS)


def test_a_git_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    git = Git("git", {}, lambda *_: Outcome(-9, "", timed_out=True))
    with pytest.raises(HostError, match="can't be reached"):
        git(["ls-remote"], tmp_path, ADDRESS)


# --- messages of git's, as 2.39 to 2.47 print them


@pytest.mark.parametrize(
    ("kind", "what", "output"),
    [
        (HostError, "can't be reached", "fatal: unable to access 'u': Could not resolve host: github.com"),
        (HostError, "can't be reached", "ssh: connect to host h port 22: Connection refused\nfatal: Could not read"),
        (HostError, "can't be reached", "fatal: unable to access 'u': SSL certificate problem: self-signed"),
        (HostError, "can't be reached", "error: RPC failed; curl 92 HTTP/2 stream\nfatal: early EOF"),
        (HostError, "can't be reached", "fatal: unable to access 'u': The requested URL returned error: 503"),
        (HostError, "refuses access", "fatal: could not read Username for 'https://h': terminal prompts disabled"),
        (HostError, "refuses access", "git@h: Permission denied (publickey).\nfatal: Could not read from remote"),
        (HostError, "refuses access", "fatal: unable to access 'u': The requested URL returned error: 403"),
        (HostError, "refuses access", "fatal: Authentication failed for 'https://h/'"),
        (RequestError, "no git repository", "remote: Repository not found.\nfatal: repository 'u' not found"),
        (RequestError, "no git repository", "fatal: '/x' does not appear to be a git repository"),
        (RequestError, "protocol", "fatal: transport 'ext' not allowed"),
        (HostError, "could not be written", "fatal: write error: No space left on device"),
        (RequestError, "part of a history", "error: Repository lacks these prerequisite commits:\nerror: 12ab"),
        (HostError, "git failed", "fatal: something new"),
        (HostError, "git failed", ""),
    ],
)
def test_gits_messages_become_errors(kind: type[AttnforgeError], what: str, output: str) -> None:
    error = failure(ADDRESS, output)
    assert type(error) is kind
    assert what in error.what
    assert error.hint
    assert "tok" not in str(error)


def test_a_repository_of_another_user_comes_with_the_setting_that_trusts_it() -> None:
    error = failure(GitAddress("file:///srv/r"), "fatal: detected dubious ownership in repository at '/srv/r'")
    assert isinstance(error, HostError)
    assert error.hint == "git config --global --add safe.directory /srv/r"


def listing(*lines: str) -> Git:
    text = "warning: redirecting to https://h.org/o/r.git/\n" + "".join(f"{line}\n" for line in lines)
    return Git("git", {}, lambda *_: Outcome(0, text))


def test_an_annotated_tag_is_the_commit_that_it_names(tmp_path: Path) -> None:
    git = listing(f"{ANOTHER}\trefs/tags/v1", f"{COMMIT}\trefs/tags/v1^{{}}")
    assert resolve_ref(git, Folders(tmp_path), GitAddress("https://h/o/r", "v1")).commit == COMMIT


def test_a_name_that_only_ends_alike_does_not_count(tmp_path: Path) -> None:
    git = listing(f"{ANOTHER}\trefs/tags/old/v1", f"{ANOTHER}\trefs/remotes/refs/tags/v1")
    with pytest.raises(RequestError, match="no tag or branch 'v1'"):
        resolve_ref(git, Folders(tmp_path), GitAddress("https://h/o/r", "v1"))


def test_a_tag_and_a_branch_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    git = listing(f"{ANOTHER}\trefs/heads/v1", f"{COMMIT}\trefs/tags/v1")
    with pytest.raises(RequestError, match="both a tag and a branch") as caught:
        resolve_ref(git, Folders(tmp_path), GitAddress("https://h/o/r", "v1"))
    assert COMMIT in caught.value.hint


def test_a_tag_and_a_branch_at_one_commit_are_not(tmp_path: Path) -> None:
    git = listing(f"{COMMIT}\trefs/heads/v1", f"{COMMIT}\trefs/tags/v1")
    assert resolve_ref(git, Folders(tmp_path), GitAddress("https://h/o/r", "v1")).commit == COMMIT


def test_a_tag_that_moved_says_where_it_was(tmp_path: Path) -> None:
    address = GitAddress("https://h/o/r", "v1")
    first = resolve_ref(listing(f"{COMMIT}\trefs/tags/v1"), Folders(tmp_path), address)
    again = resolve_ref(listing(f"{COMMIT}\trefs/tags/v1"), Folders(tmp_path), address)
    moved = resolve_ref(listing(f"{ANOTHER}\trefs/tags/v1"), Folders(tmp_path), address)
    assert [found.before for found in (first, again, moved)] == ["", "", COMMIT]


def test_without_a_network_a_tag_that_was_seen_is_told_by_its_commit(tmp_path: Path) -> None:
    address = GitAddress("https://h/o/r", "v1")
    resolve_ref(listing(f"{COMMIT}\trefs/tags/v1"), Folders(tmp_path), address)
    offline = Git("git", {}, lambda *_: Outcome(128, "fatal: Could not resolve host: h"))
    with pytest.raises(HostError, match="can't be reached") as caught:
        resolve_ref(offline, Folders(tmp_path), address)
    assert f"@{COMMIT}" in caught.value.hint


def test_an_empty_repository_has_no_head(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no HEAD"):
        resolve_ref(listing(), Folders(tmp_path), GitAddress("https://h/o/r"))


# --- lists and files


def test_an_empty_submodule_of_a_clone_is_found(tmp_path: Path) -> None:
    (tmp_path / ".gitmodules").write_text(
        '[submodule "a"]\n\tpath = a\n\turl = u\n[submodule "b"]\n\tpath = b c\n[submodule "d"]\n\tpath=d\n'
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").touch()
    assert empty_submodules(tmp_path) == ("a", "b c")


# --- from a request to a pin


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("flash-attn@v2.7.4", ("flash-attn", "v2.7.4")),
        ("flash-attn @ git+https://h/o/r@v1", ("flash-attn", "git+https://h/o/r@v1")),
        ("flash-attn==2.8.3", None),
        ("./folder@v1", None),
        ("git+https://h/o/r@v1", None),
        ("/a/b@c", None),
    ],
)
def test_a_name_at_a_reference_is_told_from_a_path(package: str, expected: tuple[str, str] | None) -> None:
    assert at_reference(package) == expected


def test_a_git_source_and_another_source_are_one_too_many() -> None:
    with pytest.raises(RequestError, match="is a source already"):
        git_wish("flash-attn@v2.7.4", "sdist")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """A machine where no program can be run: what asks git fails."""

    def refuse(command: Command, log: IO[str] | None = None) -> Outcome:
        raise AssertionError(f"{command} was run")

    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    return Machine({"ATTNFORGE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path), "PATH": ""}, refuse)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("flash-attn==2.7.2", "git"),
        (f"flash-attn@{COMMIT}", ""),
        (f"git+{UPSTREAM}.git@{COMMIT}", ""),
        ("flash-attn==2.7.2", f"git+{UPSTREAM}@{COMMIT}"),
    ],
)
def test_a_commit_that_the_recipe_records_is_planned_without_git_or_network(
    machine: Machine, package: str, source: str
) -> None:
    made = plan(machine, Request(package=package, source=source, gpus=("H100",)))
    assert made.plan.version == "2.7.2"
    assert made.plan.source.commit == COMMIT
    assert made.plan.source.url.removesuffix(".git") == UPSTREAM
    assert made.plan.source.submodules == ("csrc/cutlass",)
    assert made.plan.label.endswith(".gb7d29fb3")
    assert made.plan.selection.kept
    assert COMMIT in {decision.choice for decision in made.resolution.decisions}
    assert not (machine.folders.cache / "git").exists()


def test_credentials_are_no_part_of_a_plan(machine: Machine) -> None:
    made = plan(machine, Request(package=f"flash-attn @ git+https://me:tok@h.org/o/r@{COMMIT}", gpus=("H100",)))
    assert "tok" not in made.resolution.model_dump_json()
    assert isinstance(made.located.source, Commit)
    assert made.located.source.address.credentials == "me:tok"


def test_a_named_target_does_not_change_the_version_of_a_tag(machine: Machine) -> None:
    made = plan(machine, Request(package=f"flash-attn@{COMMIT}", target="hopper"))
    assert made.plan.version == "2.7.2"


def test_a_version_without_a_recorded_commit_goes_by_its_tag(machine: Machine) -> None:
    with pytest.raises(HostError, match="no git program"):
        plan(machine, Request(package="flash-attn==2.8.3", source="git", gpus=("H100",)))


@pytest.mark.parametrize(("package", "source"), [("nobody-knows==1.0", "git"), ("nobody-knows@v1", "")])
def test_a_package_without_a_repository_needs_an_address(machine: Machine, package: str, source: str) -> None:
    with pytest.raises(RequestError, match="no git repository of nobody-knows is known") as caught:
        plan(machine, Request(package=package, source=source, gpus=("H100",)))
    assert "git+https://" in caught.value.hint


@pytest.mark.parametrize("fields", [{"kind": "git"}, {"kind": "sdist"}, {"kind": "git", "sha256": "a" * 64}])
def test_a_source_that_nothing_pins_is_none(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="pinned by"):
        SourcePin.model_validate({"name": "x", **fields})


def test_a_clone_without_the_submodule_that_the_recipe_needs_is_refused(machine: Machine, tmp_path: Path) -> None:
    clone = tmp_path / "flash-attention"
    (clone / "csrc" / "cutlass").mkdir(parents=True)
    (clone / "setup.py").write_text("from setuptools import setup\nsetup(name='flash_attn', version='2.8.3')\n")
    (clone / ".gitmodules").write_text('[submodule "c"]\n\tpath = csrc/ck\n[submodule "d"]\n\tpath = csrc/cutlass\n')
    with pytest.raises(RequestError, match="submodule csrc/cutlass of .* is empty") as caught:
        plan(machine, Request(package=str(clone), gpus=("H100",)))
    assert "submodule update --init csrc/cutlass" in caught.value.hint
    (clone / "csrc" / "cutlass" / "a.h").touch()
    warnings = plan(machine, Request(package=str(clone), gpus=("H100",))).resolution.warnings
    assert [one.subject for one in warnings if "submodule" in one.message] == []


def test_a_clone_of_an_unknown_package_with_an_empty_submodule_is_warned_of(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "setup.py").write_text("from setuptools import setup\nsetup(name='x', version='1')\n")
    (tmp_path / "x" / ".gitmodules").write_text('[submodule "c"]\n\tpath = c\n')
    (warning,) = plan(machine, Request(package=str(tmp_path / "x"), gpus=("H100",))).resolution.warnings
    assert "submodule c" in warning.message
