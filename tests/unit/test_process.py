"""Conversations with a program: answers, silence, death, and what it printed before."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from attnforge.process import Command, Conversation

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"


def talk(tmp_path: Path, program: str) -> Conversation:
    return Conversation(Command((sys.executable, "-c", program), tmp_path, {}))


def test_each_line_is_answered_by_a_line(tmp_path: Path) -> None:
    with talk(tmp_path, ECHO) as program:
        assert [program.ask(word, 20) for word in ("abc", "", "ä" * 100_000)] == ["cba", "", "ä" * 100_000]
        assert program.end() == 0


def test_silence_is_a_timeout_and_the_whole_group_ends(tmp_path: Path) -> None:
    program = "import subprocess, sys, time; sys.stdin.readline(); c = subprocess.Popen(['sleep', '600'])\n"
    program += "print(c.pid, flush=True); time.sleep(600)"
    with talk(tmp_path, program) as running:
        grandchild = int(running.ask("go", 20))
        with pytest.raises(TimeoutError):
            running.ask("more", 0.2)
        assert running.end(grace=0) == -9
    for _ in range(100):
        if not Path(f"/proc/{grandchild}").exists() or "Z" in Path(f"/proc/{grandchild}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    raise AssertionError("the grandchild lives")


@pytest.mark.parametrize(("how", "code"), [("os.abort()", -6), ("os._exit(7)", 7), ("sys.exit()", 0)])
def test_death_is_the_end_of_answers(tmp_path: Path, how: str, code: int) -> None:
    words = "sys.stderr.write('last words of https://me:secret@host/'); sys.stderr.flush()"
    program = f"import os, sys; sys.stdin.readline(); {words}; {how}"
    with talk(tmp_path, program) as running:
        with pytest.raises(EOFError):
            running.ask("go", 20)
        assert running.end() == code
        assert running.last_words() == "last words of https://***@host/"
        with pytest.raises(EOFError):
            running.ask("still there?", 20)


def test_much_on_stderr_stops_nothing_and_its_end_is_kept(tmp_path: Path) -> None:
    program = "import sys; sys.stdin.readline(); sys.stderr.write('x' * 10**6 + 'end'); "
    program += "print('done', flush=True); sys.stdin.read()"
    with talk(tmp_path, program) as running:
        assert running.ask("go", 20) == "done"
        assert running.last_words(10) == "xxxxxxxend"


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Conversation(Command(("/no/such/program",), tmp_path, {}))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
