"""Where a wheel is tried, with a stand-in for torch: what answers, and what of a failing package is told."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from attnforge.errors import HostError, RequestError, WheelError
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Pair
from attnforge.wheelfile.embedded import read_coverage
from attnforge.wheelfile.metadata import read_metadata, torch_requirements
from attnforge.workflow.child import Child
from attnforge.workflow.fitting import chosen_pair, read_name
from attnforge.workflow.machine import Machine
from attnforge.workflow.trial import Trial, trial
from standins.forge import TORCH_WITHOUT_GPU, wait_until

NAME = "tiny-1.0+ours-py3-none-any.whl"
MODULES = {
    "torch.py": TORCH_WITHOUT_GPU,
    "good.py": "print('noise on stdout')\ndef f(a, b=1): pass",
    "raises.py": "raise ImportError('undefined symbol: _ZN3c10')",
    "dies.py": "import os, sys; sys.stderr.write('about to die'); sys.stderr.flush(); os.abort()",
    "hangs.py": "import time; time.sleep(600)",
    "calls.py": "mine = True",
}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in MODULES.items():
            archive.writestr(name, text)
        archive.writestr("tiny-1.0+ours.data/purelib/aside.py", "beside = 1")
        archive.writestr("tiny-1.0+ours.dist-info/METADATA", "Name: tiny\nVersion: 1.0+ours\n")
    return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache")})


def load(child: Child, name: str, timeout: float = 60) -> Any:
    return child.ask("about", {"do": "load", "modules": [name]}, timeout)


def test_a_wheel_is_unpacked_beside_an_interpreter_and_nothing_stays(machine: Machine, wheel: Path) -> None:
    with trial(machine, read_name(wheel), python=sys.executable) as place, Child(place) as child:
        looked = child.ask("about", {"do": "look"}, 60)
        assert (looked["torch"], looked["gpus"]) == ("2.11.0+cu130", [])
        assert set(load(child, "good")["files"]) == {"good"}
        assert "error" not in load(child, "aside")
        signatures = child.ask("about", {"do": "signatures", "module": "good"}, 60)
        assert signatures == {"functions": {"f": ["a", "b"]}}
        folder = place.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_our_own_modules_hide_none_of_the_wheels(machine: Machine, wheel: Path) -> None:
    with trial(machine, read_name(wheel), python=sys.executable) as place, Child(place) as child:
        assert str(place.folder) in str(load(child, "calls")["files"])


def test_a_failure_is_an_answer_and_the_next_question_is_answered(machine: Machine, wheel: Path) -> None:
    with trial(machine, read_name(wheel), python=sys.executable) as place, Child(place) as child:
        raised = load(child, "raises")["error"]
        died = load(child, "dies")["error"]
        hung = load(child, "hangs", timeout=0.5)["error"]
        assert "error" not in load(child, "good")
    assert isinstance(raised, dict) and isinstance(died, dict) and isinstance(hung, dict)
    assert (raised["type"], raised["sticky"]) == ("ImportError", False)
    assert "undefined symbol" in raised["text"]
    assert (died["type"], died["code"]) == ("Crash", -6)
    assert "about to die" in died["trace"]
    assert (hung["type"], hung["text"]) == ("Hang", "no answer within 0.5 seconds")


def is_running(pid: int) -> bool:
    """Whether a process does anything; one that ended may be listed until its new parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PARENT = """
import sys
from pathlib import Path
from attnforge.workflow.machine import Machine
from attnforge.workflow.child import Child
from attnforge.workflow.fitting import read_name
from attnforge.workflow.trial import trial

machine = Machine({"PATH": "/usr/bin:/bin", "HOME": sys.argv[2], "ATTNFORGE_CACHE": sys.argv[2]})
with trial(machine, read_name(Path(sys.argv[1])), python=sys.executable) as place, Child(place) as child:
    child.ask("about", {"do": "look"}, 60)
    print(child._running._process.pid, flush=True)
    child.ask("about", {"do": "load", "modules": ["hangs"]}, 600)
"""


def test_a_call_that_hangs_ends_with_an_attnforge_that_was_killed(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(wheel), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not is_running(child), 20)


def test_an_interpreter_without_torch_is_the_environments_fault(machine: Machine, wheel: Path, tmp_path: Path) -> None:
    place = Trial(read_name(wheel), Path(sys.executable), (), tmp_path, {})
    with Child(place) as child, pytest.raises(HostError, match="no PyTorch that can be imported"):
        child.ask("about", {"do": "look"}, 60)


def test_bad_input_is_told_by_its_class(machine: Machine, wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        read_name(tmp_path / "gone-1-py3-none-any.whl")
    with pytest.raises(RequestError, match="no interpreter"), trial(machine, read_name(wheel), python="no-such-python"):
        raise AssertionError
    wheel.write_bytes(b"no archive")
    with pytest.raises(WheelError, match="can't be unpacked"), trial(machine, read_name(wheel), python=sys.executable):
        raise AssertionError
    (tmp_path / "tiny.whl").touch()
    with pytest.raises(WheelError, match="no wheel's name"):
        read_name(tmp_path / "tiny.whl")


def test_only_a_wheel_of_ours_says_what_it_covers(wheel: Path) -> None:
    assert read_coverage(wheel) is None
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny-1.0+ours.dist-info/attnforge/coverage.json", '{"package": "tiny"}')
    assert read_coverage(wheel) == {"package": "tiny"}


# --- which Python and PyTorch: what uv is asked for, without asking it

OURS = f"3.{sys.version_info.minor}"
NEWEST = f"3.{sys.version_info.minor + 1}"
OLDEST = "3.8"


@dataclass(frozen=True)
class Asked:
    """Stands for uv, and writes down what it would install."""

    told: list[tuple[str, ...]] = field(default_factory=list)

    def venv(self, folder: Path, python: str, *options: str) -> None:
        # A path is that of an interpreter of this machine, and its version is what counts.
        self.told.append((OURS if "/" in python else python,))

    def install(self, into: Path, requirements: tuple[str, ...], *options: str) -> None:
        self.told.append((requirements[0], *options))


def asked(machine: Machine, wheel: Path, torch: str = "") -> list[tuple[str, ...]]:
    """Return the Python, and the requirement of torch with uv's options."""
    uv = Asked()
    object.__setattr__(machine, "uv", uv)
    with trial(machine, read_name(wheel), torch=torch):
        return uv.told


@pytest.fixture
def make_universal(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Callable[..., Path]:
    """Write a universal wheel of those pairs that has nothing but its plan."""

    def make(*pairs: tuple[str, str], cuda: str = "13.0") -> Path:
        plan = make_plan(torch="2.11.0", python="3.12").to_json()
        plan["pairs"] = [{"torch": torch, "python": python} for torch, python in pairs]
        plan["target"] |= {"torch": pairs[0][0], "python": pairs[0][1], "cuda": cuda}
        path = tmp_path / "tiny-2.0-py3-none-linux_x86_64.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tiny-2.0.dist-info/attnforge/plan.json", json.dumps(plan))
        return path

    return make


PAIRS = (("2.11.0", OLDEST), ("2.11.0", OURS), ("2.11.0", NEWEST), ("2.12.1", OLDEST), ("2.12.1", NEWEST))


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [
        ("", (NEWEST, "torch==2.12.1")),
        ("2.12", (NEWEST, "torch==2.12.1")),
        ("2.12.0", (NEWEST, "torch==2.12.0")),
        ("2.11", (OURS, "torch==2.11.0")),
    ],
)
def test_a_universal_wheel_is_tried_as_one_of_its_pairs(
    machine: Machine, make_universal: Callable[..., Path], torch: str, wanted: tuple[str, str]
) -> None:
    (python,), (requirement, *options) = asked(machine, make_universal(*PAIRS), torch)
    assert ((python, requirement), options) == (wanted, [])


def test_a_universal_wheel_is_tried_with_its_own_cuda(machine: Machine, make_universal: Callable[..., Path]) -> None:
    wheel = make_universal(("2.10.0", OURS), ("2.11.0", OURS), cuda="12.8")
    assert asked(machine, wheel)[1] == ("torch==2.11.0", "--torch-backend", "cu128")
    assert asked(machine, wheel, "2.10")[1] == ("torch==2.10.0",)


def test_a_pytorch_that_a_universal_wheel_has_nothing_for(
    machine: Machine, make_universal: Callable[..., Path]
) -> None:
    with pytest.raises(RequestError, match="no modules for PyTorch 2.13") as caught:
        asked(machine, make_universal(*PAIRS), "2.13")
    assert f"PyTorch 2.12 with Python {OLDEST}, {NEWEST}" in caught.value.why
    assert caught.value.hint == "add them: attnforge extend tiny-2.0-py3-none-linux_x86_64.whl --torch 2.13"


def test_the_pair_that_runs_attnforge_is_taken_before_a_newer_one(
    make_universal: Callable[..., Path], make_plan: Callable[..., BuildPlan]
) -> None:
    pairs = tuple(Pair(torch=torch, python=python) for torch, python in PAIRS)
    plan = make_plan().model_copy(update={"pairs": pairs})
    file = read_name(make_universal(*PAIRS))
    assert chosen_pair(file, plan, "2.11") == pairs[1]
    assert chosen_pair(file, plan) == pairs[-1]


def with_requirements(wheel: Path, *lines: str) -> Path:
    """Write a wheel anew that asks for these, and for nothing else."""
    with zipfile.ZipFile(wheel, "w") as archive:
        text = "Name: tiny\nVersion: 1.0+ours\n" + "".join(f"Requires-Dist: {line}\n" for line in lines)
        archive.writestr("tiny-1.0+ours.dist-info/METADATA", text)
    return wheel


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ((), "torch==2.11.0"),
        (("torch", "einops"), "torch==2.11.0"),
        (("torch>=2.9",), "torch==2.11.0"),
        (("torch==2.7.*",), "torch==2.7.*"),
        (("torch>=2.12", "torch<2.14"), "torch<2.14,>=2.12"),
        (
            ('torch==2.7.*; python_version == "3.1"', f'torch<2.14,>=2.12; python_version == "{OURS}"'),
            "torch<2.14,>=2.12",
        ),
        (('torch==2.7.*; python_version == "3.1"',), "torch==2.11.0"),
        (('torch==2.7.*; extra == "old"',), "torch==2.11.0"),
    ],
)
def test_what_a_wheel_asks_for_with_this_python_decides(
    machine: Machine, wheel: Path, lines: tuple[str, ...], wanted: str
) -> None:
    assert asked(machine, with_requirements(wheel, *lines)) == [(OURS,), (wanted,)]


@pytest.mark.parametrize(
    ("python", "specifiers"), [("3.10", ["<2.14"]), ("3.10.4", ["<2.14"]), ("3.11.9", ["<2.15"]), ("3.12", [])]
)
def test_markers_are_those_of_the_python_that_is_asked_of(wheel: Path, python: str, specifiers: list[str]) -> None:
    lines = ('torch<2.14; python_version == "3.10"', 'torch<2.15; python_version == "3.11"', "not a requirement!")
    found: list[Any] = list(torch_requirements(read_metadata(with_requirements(wheel, *lines)), python))
    assert [str(one.specifier) for one in found] == specifiers
