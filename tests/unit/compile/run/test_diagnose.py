from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attnforge.compile.run.diagnose import disk_full, explain, first_error, was_killed
from attnforge.errors import BuildError

NVCC = """\
[1/73] /usr/local/cuda/bin/nvcc -Werror -c flash_fwd.cu -o flash_fwd.o
FAILED: [code=4] flash_fwd.o
a.h(3): warning #177-D: variable "x" was declared but never referenced

flash_fwd.cu(2): error: static assertion failed with "N too small"
  template<int N> struct A { static_assert(N > 3, "N too small"); };
                             ^
          detected during:
            instantiation of class "A<N> [with N=3]" at line 20
            instantiation of class "A<N> [with N=4]" at line 20
            instantiation of class "A<N> [with N=5]" at line 30

flash_fwd.cu(9): error: identifier "foo" is undefined

2 errors detected in the compilation of "flash_fwd.cu".
ninja: build stopped: subcommand failed.
"""

GCC = """\
In file included from /usr/include/c++/12/vector:61,
                 from p.cpp:1:
new_allocator.h: In instantiation of 'void construct(_Up*, _Args&& ...)':
alloc_traits.h:516:17:   required from 'static void construct(allocator_type&, _Up*, _Args&& ...)'
p.cpp:3:50:   required from here
new_allocator.h:175:11: error: use of deleted function 'X::X(const X&)'
  175 |         { ::new((void *)__p) _Up(std::forward<_Args>(__args)...); }
      |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
p.cpp:2:12: note: declared here
"""

PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas /tmp/k.ptx, line 21; error   : Instruction 'wgmma.fence' not supported on .target 'sm_90'
ptxas fatal   : Ptx assembly aborted due to errors
"""

LINK = """\
/usr/bin/ld: /tmp/l.o: in function `main':
l.cpp:(.text+0x5): undefined reference to `f()'
collect2: error: ld returned 1 exit status
error: command '/usr/bin/g++' failed with exit code 1
"""

SETUP = """\
Precompiled wheel not found. Building from source...
Traceback (most recent call last):
  File "setup.py", line 9, in <module>
    import torch
ModuleNotFoundError: No module named 'torch'
error: subprocess-exited-with-error
"""


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (NVCC, 'flash_fwd.cu(2): error: static assertion failed with "N too small"'),
        (GCC, "new_allocator.h:175:11: error: use of deleted function 'X::X(const X&)'"),
        (PTXAS, "ptxas /tmp/k.ptx, line 21; error   : Instruction 'wgmma.fence' not supported on .target 'sm_90'"),
        (LINK, "l.cpp:(.text+0x5): undefined reference to `f()'"),
        (SETUP, "ModuleNotFoundError: No module named 'torch'"),
        (
            "nvcc error   : 'cicc' died due to signal 9 (Kill signal) \n",
            "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
        ),
        ("nvcc fatal   : Unsupported gpu architecture 'sm_50'", "nvcc fatal   : Unsupported gpu architecture 'sm_50'"),
        (
            'x.cu(4): catastrophic error: cannot open source file "a.h"',
            'x.cu(4): catastrophic error: cannot open source file "a.h"',
        ),
        ("x.cu(4): error #20012-D: calling a host function", "x.cu(4): error #20012-D: calling a host function"),
        ("x.cu(4): error #20012: calling", "x.cu(4): error #20012: calling"),
        (
            "nvlink error   : Undefined reference to 'g' in 'x.o'",
            "nvlink error   : Undefined reference to 'g' in 'x.o'",
        ),
        (
            "/usr/bin/ld: cannot find -lcuda: No such file or directory",
            "/usr/bin/ld: cannot find -lcuda: No such file or directory",
        ),
        ("x.s: Assembler messages:\nx.s: Error: can't open x.s", "x.s: Error: can't open x.s"),
        ("sh: 1: nvcc: not found\nninja: build stopped: x", "sh: 1: nvcc: not found"),
        ("sccache: error: failed to get stats", "sccache: error: failed to get stats"),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "terminate called after throwing an instance of 'std::bad_alloc'",
        ),
        ("\x1b[01m\x1b[Kp.cpp:1:1:\x1b[m\x1b[K \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[Kbad", "p.cpp:1:1: error: bad"),
        # Nothing but consequences: the first of them.
        (
            "ninja: build stopped: subcommand failed.\nRuntimeError: Error compiling objects for extension",
            "ninja: build stopped: subcommand failed.",
        ),
        ("[1/2] x\nKilled\nninja: build stopped: x", "Killed"),
        # Nothing that looks like an error: the last line.
        ("compiling\nstill compiling\n\n", "still compiling"),
        ("", ""),
        ("\n \n\t\n", ""),
    ],
)
def test_first_error(log: str, first: str) -> None:
    assert first_error(log).partition("\n")[0] == first


def test_the_source_and_the_users_own_line_of_a_backtrace_stay() -> None:
    assert first_error(NVCC).splitlines()[1:] == [
        '  template<int N> struct A { static_assert(N > 3, "N too small"); };',
        "                             ^",
        'instantiation of class "A<N> [with N=5]" at line 30',
    ]
    assert first_error(GCC).splitlines()[-1] == "p.cpp:3:50:   required from here"
    assert len(first_error(GCC).splitlines()) == 4


@pytest.mark.parametrize(
    "line",
    [
        "x.cu(4): warning #20012-D: error: not really",
        "x.cpp:4:1: note: error: in a note",
        "[3/73] nvcc -o error: x.o",
        '1 error detected in the compilation of "x.cu".',
        "INFO: error: told by a logger",
    ],
)
def test_noise_is_passed_over(line: str) -> None:
    assert first_error(f"{line}\nx.cu(9): error: real") == "x.cu(9): error: real"


def test_long_lines_are_cut() -> None:
    found = first_error("x.cu(1): error: " + "T<" * 50_000)
    assert len(found) == 600


@pytest.mark.parametrize("part", ["error ", "a, b: ", "cute/", "hopper/ static assertion failed", "\x1b]", "1", "sh: "])
def test_a_log_of_one_endless_line_takes_no_time(part: str) -> None:
    # Patterns that backtrack over a whole line would take minutes here.
    assert explain(part * 100_000, 1, "x.cu", "rerun").what.startswith("x.cu failed to compile: ")


@pytest.mark.parametrize(
    ("code", "log", "killed"),
    [
        (137, "", True),
        (-9, "", True),
        (254, "", True),
        (1, "nvcc error   : 'cicc' died due to signal 9 (Kill signal)", True),
        (255, "Killed\n", True),
        (1, "sh: line 1: 4242 Killed   nvcc", True),
        (4, "g++: fatal error: Killed signal terminated program cc1plus", True),
        (1, "collect2: fatal error: ld terminated with signal 9 [Killed]", True),
        (1, "sccache: encountered fatal error\nsignal: 9, SIGKILL: kill", True),
        (1, "x.cu(1): error: bad", False),
        (-11, "nvcc error   : 'cicc' died due to signal 11", False),
        (1, "// Killed in action", False),
        (1, 'error: identifier "Killed" is undefined', False),
        (-15, "", False),
    ],
)
def test_was_killed(code: int, log: str, killed: bool) -> None:
    assert was_killed(code, log) is killed


@pytest.mark.parametrize(
    ("log", "full"),
    [
        ("as: fatal error: can't write 12 bytes: No space left on device", True),
        ("OSError: [Errno 122] Disk quota exceeded", True),
        ("x.cu(1): error: bad", False),
    ],
)
def test_disk_full(log: str, full: bool) -> None:
    assert disk_full(log) is full


def test_without_a_command_to_rerun_none_is_announced() -> None:
    assert explain("ModuleNotFoundError: No module named 'x'", 1, "upstream's build", "").hint == ""


def test_explain_names_unit_error_cause_and_the_command_to_rerun() -> None:
    error = explain(PTXAS, 255, "flash_fwd.cu", "attnforge build --unit flash_fwd.cu")
    assert isinstance(error, BuildError)
    assert error.exit_code == 4
    assert error.what.startswith("flash_fwd.cu failed to compile: ptxas /tmp/k.ptx")
    assert "architecture" in error.why
    assert error.hint.endswith("run: attnforge build --unit flash_fwd.cu")
    assert error.link.endswith("/291")


@pytest.mark.parametrize(
    ("log", "code", "expected"),
    [
        ("", 137, "killed"),
        ("nothing to see", 254, "killed"),
        ("ld: final link failed: No space left on device", 137, "full"),
        ("x.cu(1): error: odd", -11, "signal 11"),
        ("x.cu(1): error: odd", 2, "exit code 2"),
        # The signature stands further down than the first error.
        ("x.h:1: error: odd\ny.h:2: fatal error: cusparse.h: No such file or directory", 1, "toolkit"),
    ],
)
def test_the_cause(log: str, code: int, expected: str) -> None:
    assert expected in explain(log, code, "x.cu", "rerun").why


def test_a_compiler_that_printed_nothing() -> None:
    error = explain("", 1, "x.cu", "nvcc x.cu")
    assert error.what == "x.cu failed to compile and printed nothing"
    assert "nvcc x.cu" in error.hint


LINES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [*NVCC.splitlines(), *GCC.splitlines(), *LINK.splitlines(), *PTXAS.splitlines(), "Killed", "", "   "]
    ),
)


@given(st.lists(LINES, max_size=25).map("\n".join), st.integers(-64, 255))
@example("\x1b[31merror: \x1b[m", 1)
@example("error:\x85x", 1)
def test_any_log_is_explained_with_its_own_lines(log: str, code: int) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\n]{0,300}\x07", "", log)
    found = first_error(log)
    assert all(line in plain for line in found.split("\n"))
    assert bool(found) == bool(plain.strip())
    error = explain(log, code, "unit", "rerun it")
    assert found in error.what
    assert error.why
    assert "rerun it" in error.hint
