"""Nothing that attnforge starts, and no temporary folder, outlives it: whichever process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.process import Command, reaper, run
from attnforge.process.guard import Guard, guard, make_temporary, removed, temporary_folder


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- the reaper


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], set()),
        (["+1\n", "+2\n", "-1\n"], {2}),
        (["-1\n", "+1\n"], {1}),
        (["+1\n", "+1\n", "-1\n"], set()),
        (["x\n", "\n", "+\n", "+1x\n", "+-1\n", "+3"], {3}),
    ],
)
def test_the_reaper_knows_what_is_left(lines: list[str], left: set[int]) -> None:
    assert reaper.watch([line.encode() for line in lines]) == (left, set())


def test_the_reaper_knows_folders_of_any_name() -> None:
    odd = b"/tmp/a b\xff"
    assert reaper.watch([b">/a\n", b">" + odd + b"\n", b"</a\n"]) == (set(), {os.fsdecode(odd)})


def test_the_reaper_removes_no_folder_of_a_relative_name() -> None:
    # It is in /, where "." would be everything.
    assert reaper.watch([b">.\n", b">\n", b">a\n", b">/a\n"]) == (set(), {"/a"})


def test_a_folder_of_a_relative_name_is_removed_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it").mkdir()
    (tmp_path / "other").mkdir()
    own = Guard()
    for name in ("it", "other"):
        own.remove_later(Path(name))
    own.forget(Path("other"))
    own.close()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_folder_that_was_there_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, module = Guard(), sys.modules[Guard.__module__]
    monkeypatch.setattr(module, "guard", lambda: own)
    monkeypatch.setattr("secrets.token_hex", lambda _: "1")
    (tmp_path / "it-1").mkdir()
    with pytest.raises(FileExistsError):
        make_temporary("it-", tmp_path)
    own.close()
    assert (tmp_path / "it-1").exists()


def test_the_reaper_kills_what_is_left_and_removes_folders(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    left, ended = (subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2))
    words = f"+{left.pid}\n+{ended.pid}\n-{ended.pid}\n+999999999\n>{folder}\n"
    command = [sys.executable, "-I", "-S", reaper.__file__]
    subprocess.run(command, input=words, text=True, timeout=20, check=True)
    assert left.wait(timeout=10) == -signal.SIGKILL
    assert ended.poll() is None
    ended.kill()
    ended.wait()
    assert not folder.exists()


def test_the_reaper_ends_a_session_in_all_its_groups(tmp_path: Path) -> None:
    """Those of an interactive shell's jobs, for example."""
    script = f"set -m; sleep 600 & echo $! > {tmp_path}/pid; wait"
    leader = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)
    until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text().strip()))
    command = [sys.executable, "-I", "-S", reaper.__file__]
    subprocess.run(command, input=f"+{leader.pid}\n", text=True, timeout=20, check=True)
    assert leader.wait(timeout=10) == -signal.SIGKILL
    until(lambda: not lives(int((tmp_path / "pid").read_text())))


# --- attnforge is killed


CHILD = """
import sys
from pathlib import Path
from attnforge.process import Command, run
from attnforge.process.guard import make_temporary
folder = Path(sys.argv[1])
(make_temporary("it-", folder) / "file").touch()
script = "sleep 600 & echo $$ $! > pids.new; mv pids.new pids; wait"
run(Command(("sh", "-c", script), folder, {"PATH": "/usr/bin:/bin"}))
"""


def test_programs_and_folders_go_with_a_killed_attnforge(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path])
    until((tmp_path / "pids").exists)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and all(map(lives, pids)) and list(tmp_path.glob("it-*"))
    process.kill()
    process.wait()
    until(lambda: not any(map(lives, pids)))
    until(lambda: not list(tmp_path.glob("it-*")))


# --- the reaper is killed


def test_a_reaper_that_is_killed_is_replaced_and_its_successor_knows_all(tmp_path: Path) -> None:
    own = Guard()
    running = own.start(["sleep", "600"], stderr=subprocess.DEVNULL)
    folder = tmp_path / "it"
    folder.mkdir()
    own.remove_later(folder)
    first = own.reaper
    os.kill(first, signal.SIGKILL)
    until(lambda: own.reaper != first)
    own.close()
    assert running.wait(timeout=20) == -signal.SIGKILL
    assert not folder.exists()


def test_programs_run_while_there_is_no_reaper(tmp_path: Path) -> None:
    for _ in range(20):
        os.kill(guard().reaper, signal.SIGKILL)
        done = run(Command(("echo", "well"), tmp_path, {"PATH": "/usr/bin:/bin"}))
        assert (done.code, done.output) == (0, "well\n")


# --- temporary folders


def test_a_temporary_folder_is_ours_alone_and_goes(tmp_path: Path) -> None:
    with temporary_folder("it-", tmp_path) as folder:
        assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path, 0o700)
        (folder / "file").touch()
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        make_temporary("it-", tmp_path / "missing")


def test_a_folder_of_someone_elses_is_left_to_him(tmp_path: Path) -> None:
    with removed(tmp_path):
        pass
    assert tmp_path.exists()


# --- programs that can't be started


@pytest.mark.parametrize("name", ["/no/such/program", "no-such-program", "./none"])
def test_a_program_that_is_missing_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        run(Command((name,), tmp_path, {"PATH": "/usr/bin:/bin"}))


def test_a_file_that_is_no_program_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    with pytest.raises(PermissionError, match="text"):
        run(Command(("./text",), tmp_path, {}))


def test_a_program_is_found_in_its_own_folder_and_path(tmp_path: Path) -> None:
    program = tmp_path / "it"
    program.write_text("#!/bin/sh\necho $0\n")
    program.chmod(0o755)
    assert run(Command(("./it",), tmp_path, {})).output == "./it\n"
    assert run(Command(("it",), Path("/"), {"PATH": str(tmp_path)})).output == f"{program}\n"
