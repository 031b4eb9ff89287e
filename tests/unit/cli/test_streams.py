"""An output that can't be written is the environment's fault, and said on the other one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnforge.cli import main as program
from attnforge.cli.streams import Output, refused
from attnforge.errors import HostError

PROGRAM = "from attnforge.cli.main import run; import sys; sys.argv = ['attnforge', *sys.argv[1:]]; run()"


def run(redirect: str, *words: str, **environ: str) -> tuple[int, str]:
    """Run the program in a shell with a redirection; return its exit code and what it wrote to standard error."""
    argv = ["bash", "-c", f'exec "$@" {redirect}', "bash", sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environ}, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("redirect", "said"), [(">&-", "standard output is closed"), (">/dev/full", "No space left on device")]
)
@pytest.mark.parametrize("words", [("--help",), ("packages",), ("packages", "--json"), ("plan", "a b")])
def test_an_output_that_can_not_be_written_exits_3(redirect: str, said: str, words: tuple[str, ...]) -> None:
    code, err = run(redirect, *words)
    if words[0] == "plan" and redirect == ">/dev/full":
        assert code == 2  # nothing is written but the error
        return
    assert code == 3
    assert said in err
    assert "Traceback" not in err and "Exception ignored" not in err


def test_a_file_that_may_not_grow_exits_3(tmp_path: Path) -> None:
    limited = f"{PROGRAM}"
    shell = 'ulimit -f 1; exec "$@" >out'
    argv = ["bash", "-c", shell, "bash", sys.executable, "-c", limited, "packages", "--schema"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert "File too large" in done.stderr


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_without_an_error_output_the_exit_code_is_the_same(redirect: str) -> None:
    assert run(redirect, "plan", "a b")[0] == 2


def test_a_pipe_that_nobody_reads_is_no_error() -> None:
    assert run("| true", "packages")[0] == 0
    assert "Traceback" not in run("| true", "packages", "--schema")[1]


def test_letters_that_an_output_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Output(stream).write("sha256 1e71…\n")
    stream.flush()
    assert raw.getvalue() == b"sha256 1e71\\u2026\n"


def test_what_the_system_refuses_is_said_in_its_words() -> None:
    error = refused(OSError(13, "Permission denied", "/x"))
    assert isinstance(error, HostError)
    assert error.what == "/x: Permission denied"


@pytest.mark.parametrize(
    ("raised", "code"), [(OSError(24, "Too many open files"), 3), (MemoryError(), 3), (OSError("?"), 1)]
)
def test_which_errors_are_the_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: Exception, code: int
) -> None:
    def fail(*_: object) -> int:
        raise raised

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the report of a crash goes there
    monkeypatch.setattr(program, "_dispatch", fail)
    assert program.main(["plan"], {}, io.StringIO(), io.StringIO()) == code


def test_our_own_fault_is_told_also_where_no_file_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program, "_dispatch", fail)
    monkeypatch.setattr("tempfile.mkdtemp", full)
    err = io.StringIO()
    assert program.main(["plan"], {}, io.StringIO(), err) == 1
    assert "--debug" in err.getvalue()
