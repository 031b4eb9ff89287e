"""Where a wheel is tried, with a stand-in for torch: what answers, and what of a failing package is told."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from attnforge.errors import HostError, RequestError, WheelError
from attnforge.workflow.machine import Machine
from attnforge.workflow.trial import Child, Trial, coverage, read_name, trial
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


def load(child: Child, name: str, timeout: float = 60) -> dict[str, object]:
    return child.ask("about", {"do": "load", "modules": [name]}, timeout)


def test_a_wheel_is_unpacked_beside_an_interpreter_and_nothing_stays(machine: Machine, wheel: Path) -> None:
    with trial(machine, read_name(wheel), python=sys.executable) as place, Child(place) as child:
        looked = child.ask("about", {"do": "look"}, 60)
        assert (looked["torch"], looked["gpus"]) == ("2.11.0+cu130", [])
        assert set(load(child, "good")["files"]) == {"good"}  # type: ignore[call-overload]
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
from attnforge.workflow.trial import Child, read_name, trial

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
    assert coverage(wheel) is None
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny-1.0+ours.dist-info/attnforge/coverage.json", '{"package": "tiny"}')
    assert coverage(wheel) == {"package": "tiny"}
