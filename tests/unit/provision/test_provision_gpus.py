"""GPUs of the target in a build's processes: a real interpreter, with a package that plays PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attnforge.knowledge.gpus import find_gpu
from attnforge.provision.gpus import WITHOUT_NINJA, through_ninja, virtual_gpus, without_pip

# As torch does: the package imports torch.cuda itself, which asks the machine, and others import names from it.
TORCH = "from . import cuda\n"
CUDA = """\
def is_available(): return False
def device_count(): return 0
def current_device(): raise RuntimeError("no GPU")
def get_device_name(device=None): raise RuntimeError("no GPU")
def get_device_capability(device=None): raise RuntimeError("no GPU")
def get_device_properties(device=None): raise RuntimeError("no GPU")
def synchronize(): raise RuntimeError("no GPU")
"""
ASK = """\
import json, sys
import torch
from torch.cuda import is_available
count = torch.cuda.device_count()
print(json.dumps({
    "available": is_available(),
    "capabilities": [torch.cuda.get_device_capability(i) for i in range(count)],
    "names": [torch.cuda.get_device_name(f"cuda:{i}") for i in range(count)],
    "first": [*map(torch.cuda.get_device_capability, (None, "cuda")), torch.cuda.current_device()],
    "properties": [(p.name, p.major, p.minor) for p in map(torch.cuda.get_device_properties, range(count))],
}))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in (("torch/__init__.py", TORCH), ("torch/cuda/__init__.py", CUDA), ("json2/__init__.py", "")):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "site"


def ask(site: Path, code: str, *gpus: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program where the package lies on the path, in a build's environment where GPUs are named."""
    variables = virtual_gpus(find_gpu(name).capability for name in gpus) if gpus else {}
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    words = [sys.executable, *(["-I"] if isolated else []), "-c", program]
    return subprocess.run(words, env={"PATH": os.defpath, **variables}, capture_output=True, text=True)


def told(site: Path, *gpus: str) -> dict[str, Any]:
    done = ask(site, ASK, *gpus)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_setup_sees_the_gpus_of_the_target(site: Path) -> None:
    assert told(site, "L40S", "H100") == {
        "available": True,
        "capabilities": [[8, 9], [9, 0]],
        "names": ["sm_89", "sm_90"],
        "first": [[8, 9], [8, 9], 0],
        "properties": [["sm_89", 8, 9], ["sm_90", 9, 0]],
    }


def test_no_other_process_sees_them(site: Path) -> None:
    done = ask(site, "import torch; print(torch.cuda.is_available())")
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert os.environ.get("ATTNFORGE_GPUS") is None
    # The seat and our own programs run with -I, and see the machine.
    done = ask(site, "import torch; print(torch.cuda.is_available())", "H100", isolated=True)
    assert (done.returncode, done.stdout) == (0, "False\n")


def test_processes_that_a_setup_starts_see_them_too(site: Path) -> None:
    child = f"import sys; sys.path.insert(0, {str(site)!r}); import torch; print(torch.cuda.device_count())"
    done = ask(site, f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}], check=True)", "H100")
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_what_no_setup_asks_is_left_to_pytorch(site: Path) -> None:
    done = ask(site, "import torch; torch.cuda.synchronize()", "H100")
    assert "RuntimeError: no GPU" in done.stderr


def test_a_number_that_is_too_high_is_refused_as_pytorch_does(site: Path) -> None:
    done = ask(site, "import torch; torch.cuda.get_device_capability(1)", "H100")
    assert "Error" in done.stderr
    assert done.returncode == 1


def test_a_build_without_torch_is_not_touched(site: Path) -> None:
    done = ask(site, "import json2; print('torch' in sys.modules, 'torch.cuda' in sys.modules)", "H100")
    assert (done.returncode, done.stdout) == (0, "False False\n")


CPP_EXTENSION = """\
class BuildExtension:
    @classmethod
    def with_options(cls, **options):
        return lambda: cls(**options)
    def __init__(self, **options):
        vars(self).update(options)
        self.use_ninja = options.get("use_ninja", True)
"""
SAYS = {
    "an option": "b = BuildExtension.with_options(use_ninja=False)()",
    "an argument": "b = BuildExtension(use_ninja=False)",
    "an assignment": "b = BuildExtension(); b.use_ninja = False",
    "a subclass": "class Own(BuildExtension):\n    def __init__(self): super().__init__(use_ninja=False)\nb = Own()",
    "nothing": "b = BuildExtension()",
}


@pytest.mark.parametrize("how", SAYS)
@pytest.mark.parametrize("hooked", [True, False])
def test_a_setup_that_does_without_ninja_uses_it_and_says_so(site: Path, how: str, hooked: bool) -> None:
    (site / "torch" / "utils").mkdir()
    (site / "torch" / "utils" / "__init__.py").touch()
    (site / "torch" / "utils" / "cpp_extension.py").write_text(CPP_EXTENSION)
    code = f"from torch.utils.cpp_extension import BuildExtension\n{SAYS[how]}\nprint(b.use_ninja)"
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    variables = through_ninja() if hooked else {}
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PATH": os.defpath, **variables}, capture_output=True, text=True
    )
    assert done.stdout == f"{hooked or how == 'nothing'}\n", done.stderr
    assert (WITHOUT_NINJA in done.stderr) is (hooked and how != "nothing")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("uninstall", "-y", "no-such-thing"), 0, "skipped: pip uninstall no-such-thing: a build uninstalls nothing"),
        (("-q", "install", "--no-index", "x"), 1, "error: pip install x: attnforge lets no setup.py"),
        (("--version",), 0, ""),
    ],
)
def test_the_pip_of_a_builds_environment_changes_nothing(words: tuple[str, ...], code: int, said: str) -> None:
    """F25: transformer-engine-torch requires pip, and then ``sys.executable -m pip`` is there."""
    environment = {"PATH": os.defpath, "PIP_CONFIG_FILE": os.devnull, **without_pip()}
    done = subprocess.run([sys.executable, "-m", "pip", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr and ("pip " in done.stdout) == ("--version" in words)
