from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnforge.compile.run.executor import Executor, Run
from attnforge.compile.run.sampler import largest_resident, resident_by_session, session_and_resident
from attnforge.process.guard import guard


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor() as executor:
        yield executor


def shell(tmp_path: Path, script: str, *words: str, **environment: str) -> Run:
    return Run(("/bin/sh", "-c", script, *words), str(tmp_path), {"PATH": os.defpath, **environment}, tmp_path / "log")


def python(tmp_path: Path, program: str) -> Run:
    return Run((sys.executable, "-I", "-S", "-c", program), str(tmp_path), {}, tmp_path / "log")


def test_a_program_runs_with_its_arguments_folder_and_environment(executor: Executor, tmp_path: Path) -> None:
    run = shell(tmp_path, 'echo "$0|$1|$X|$(pwd -P)|$HOME"; echo error >&2', "a b", "c;d", X="ö $")
    ended = executor.run(run)
    assert (ended.code, ended.stopped) == (0, False)
    assert run.log.read_text() == f"a b|c;d|ö $|{tmp_path.resolve()}|\nerror\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -9 $$", -signal.SIGKILL), ("kill -15 $$", -signal.SIGTERM)]
)
def test_exit_codes_and_signals(executor: Executor, tmp_path: Path, script: str, code: int) -> None:
    assert executor.run(shell(tmp_path, script)).code == code


def test_compilers_are_the_first_that_the_kernel_ends(executor: Executor, tmp_path: Path) -> None:
    ours = Path("/proc/self/oom_score_adj").read_text()
    run = shell(tmp_path, "cat /proc/self/oom_score_adj; sh -c 'cat /proc/self/oom_score_adj'")
    assert executor.run(run).code == 0
    assert run.log.read_text() == "1000\n1000\n"
    assert Path("/proc/self/oom_score_adj").read_text() == ours
    assert Path(f"/proc/{guard().reaper}/oom_score_adj").read_text() == ours


def test_a_missing_program_is_what_a_shell_says(executor: Executor, tmp_path: Path) -> None:
    run = Run(("no-such-program", "-c"), str(tmp_path), {"PATH": "/nowhere"}, tmp_path / "log")
    assert executor.run(run).code == 127
    assert "no-such-program" in run.log.read_text()


def test_a_missing_folder_is_an_error(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        executor.run(Run(("true",), str(tmp_path / "no"), {}, tmp_path / "log"))


def test_cpu_seconds_count_all_processes(executor: Executor, tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    script = '"$0" -I -S -c "$1"; "$0" -I -S -c "$1"'
    ended = executor.run(shell(tmp_path, script, sys.executable, burn))
    assert 0.4 <= ended.cpu_seconds < 5
    assert ended.seconds >= 0.39


def test_the_peak_is_that_of_one_process_at_least(executor: Executor, tmp_path: Path) -> None:
    ended = executor.run(python(tmp_path, "import time\nheld = b'x' * 200_000_000\ntime.sleep(0.2)"))
    assert 200_000_000 <= ended.peak_bytes < 400_000_000


# Runs the programs of its arguments and prints their peaks, while it holds 600 MB itself.
LARGE_PARENT = """
import sys
from pathlib import Path
from attnforge.compile.run.executor import Executor, Run
held = b"x" * 600_000_000
with Executor() as executor:
    for number, program in enumerate(sys.argv[1:]):
        run = Run((sys.executable, "-I", "-S", "-c", program), "/", {}, Path(f"log{number}"))
        print(executor.run(run).peak_bytes)
"""


def test_what_the_starting_process_holds_is_not_counted(tmp_path: Path) -> None:
    # Linux counts it in ru_maxrss, which execve keeps.
    programs = ("pass", "import time\ntime.sleep(0.7)", "held = b'x' * 900_000_000")
    told = subprocess.run(
        [sys.executable, "-c", LARGE_PARENT, *programs], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    short, long, larger = map(int, told.stdout.split())
    assert 1_000_000 < short < 100_000_000
    assert 1_000_000 < long < 100_000_000
    assert 900_000_000 <= larger < 1_000_000_000


def test_the_late_part_of_a_programs_memory_is_seen(executor: Executor, tmp_path: Path) -> None:
    program = """
import time
held = b"x" * 300_000_000
time.sleep(0.6)
del held
held = b"x" * 60_000_000
time.sleep(1.4)
"""
    ended = executor.run(python(tmp_path, program))
    assert 300_000_000 <= ended.peak_bytes < 400_000_000
    assert 60_000_000 <= ended.late_bytes < 150_000_000
    assert 0.2 < ended.early_share < 0.8


def test_memory_that_does_not_drop_is_late_to_the_end(executor: Executor, tmp_path: Path) -> None:
    ended = executor.run(python(tmp_path, "import time\nheld = b'x' * 90_000_000\ntime.sleep(1)"))
    assert ended.late_bytes == ended.peak_bytes
    assert ended.early_share == 1.0


def test_each_sample_is_told_of(tmp_path: Path) -> None:
    used: list[int] = []
    enough = tmp_path / "enough"

    def sampled() -> None:
        used.append(own.memory.used_bytes)
        if len(used) == 3:
            enough.touch()

    waits = f"import os, time\nwhile not os.path.exists({str(enough)!r}):\n    time.sleep(0.05)"
    with Executor(sampled=sampled) as own:
        own.run(python(tmp_path, waits))
    assert len(used) >= 3
    assert max(used) > 1_000_000


# Holds memory until the other process holds its own too, and for some samples more.
HOLD = """
import os, sys, time
held = b"x" * 150_000_000
open(sys.argv[1], "w").close()
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
time.sleep(1)
"""


def test_processes_that_run_at_once_count_together(executor: Executor, tmp_path: Path) -> None:
    script = '"$0" -I -S -c "$1" a b & "$0" -I -S -c "$1" b a; wait'
    ended = executor.run(shell(tmp_path, script, sys.executable, HOLD))
    assert 300_000_000 <= ended.peak_bytes < 600_000_000
    assert executor.memory.peak_bytes >= 300_000_000


def test_what_is_left_in_the_background_is_ended(executor: Executor, tmp_path: Path) -> None:
    run = shell(tmp_path, "sleep 600 & echo $!")
    assert executor.run(run).code == 0
    gone(int(run.log.read_text()))


def test_stop_ends_all_that_runs_and_starts_nothing_more(executor: Executor, tmp_path: Path) -> None:
    sessions: list[int] = []
    codes: list[int] = []

    def one(number: int) -> None:
        run = Run(("/bin/sh", "-c", "sleep 600; true"), str(tmp_path), {"PATH": os.defpath}, tmp_path / f"{number}")
        codes.append(executor.run(run, sessions.append).code)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while len(sessions) < 3:
        time.sleep(0.01)
    executor.stop()
    for thread in threads:
        thread.join(timeout=10)
    assert codes == [-9, -9, -9]
    ended = executor.run(shell(tmp_path, "touch started"))
    assert ended.stopped and not (tmp_path / "started").exists()


def test_its_folders_are_removed_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen"
    (folder / "x").mkdir(parents=True)
    with Executor([folder]) as executor:
        assert executor.run(shell(tmp_path, "true")).code == 0
        assert folder.exists()
    assert not folder.exists()


def test_memory_is_read_from_proc(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")

    def process(pid: int, name: str, session: int, pages: int) -> None:
        (tmp_path / str(pid)).mkdir()
        fields = ["S", "1", str(pid), str(session), *["0"] * 17, str(pages), *["0"] * 20]
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")

    process(10, "cicc", 10, 100)
    process(11, "a) R (b c", 10, 5)
    process(20, "ptxas", 20, 7)
    (tmp_path / "30").mkdir()
    (tmp_path / "40").mkdir()
    (tmp_path / "40" / "stat").write_text("cut")
    (tmp_path / "meminfo").write_text("")
    assert resident_by_session(tmp_path) == {10: 105 * page, 20: 7 * page}


def test_our_own_memory_is_read() -> None:
    session, resident = session_and_resident(Path("/proc/self/stat").read_bytes())
    assert session == os.getsid(0)
    assert resident > 5_000_000


def test_our_own_largest_memory_is_read() -> None:
    assert largest_resident(os.getpid()) >= session_and_resident(Path("/proc/self/stat").read_bytes())[1]
    assert largest_resident(2**22 + 1) == 0


def gone(pid: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")
