from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

import attnforge
from attnforge import AttnforgeError, BenchOptions, Machine, Request

# For calls that type checkers refuse.
untyped: Any = attnforge

NAMES = [name for name in attnforge.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(attnforge, name).__doc__


def test_dir_has_every_public_name_before_it_is_used() -> None:
    code = "import attnforge; print(set(attnforge.__all__) <= set(dir(attnforge)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_its_version_is_the_installed_one() -> None:
    assert attnforge.__version__ == version("attnforge")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        attnforge.nothing_like_it  # noqa: B018


def test_importing_it_costs_nothing() -> None:
    code = "import sys, attnforge; print(len([name for name in sys.modules if name.startswith('attnforge.')]))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "0"


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("wheel", lambda machine: untyped.audit_wheel(machine, 3)),
        ("python", lambda machine: untyped.audit_wheel(machine, "a.whl", python=3)),
        ("beside", lambda machine: untyped.audit_wheel(machine, "a.whl", beside="b.whl")),
        ("wheel", lambda machine: untyped.check_wheel(machine, b"a.whl")),
        ("wheels", lambda machine: untyped.bench_wheels(machine, "a.whl", options=BenchOptions())),
        ("against", lambda machine: untyped.bench_wheels(machine, [], [1, 2])),
        ("b", lambda machine: untyped.compare_wheels("a.whl", None)),
        ("wheel", lambda machine: untyped.plan_extension(machine, None, Request(package=""))),
        ("out", lambda machine: untyped.build(machine, None, None)),
        ("out", lambda machine: untyped.extend(machine, None, 1)),
    ],
)
def test_an_argument_that_is_no_path_is_named(argument: str, call: Any) -> None:
    with pytest.raises(AttnforgeError, match=f"^{argument} must be a") as caught:
        call(Machine({}))
    assert caught.value.exit_code == 2


def test_a_path_may_be_a_text() -> None:
    with pytest.raises(AttnforgeError, match="no-such"):
        attnforge.compare_wheels("no-such.whl", "no-such.whl")
