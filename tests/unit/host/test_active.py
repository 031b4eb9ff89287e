"""Which environment is active, and what its interpreter says of the PyTorch in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from attnforge.errors import HostError, RequestError
from attnforge.host import active, inquiry
from attnforge.host.active import Inquirer, interpreter_in, interpreter_of, read_answer
from attnforge.host.programs import Programs
from attnforge.model.host import Installed
from attnforge.process import Command, Outcome, run

VERSION = "__version__ = '{version}'\ncuda = {cuda!r}\nhip = {hip!r}\ngit_version = 'abc123'\n"


# --- which is asked


@dataclass
class Interpreters:
    """Interpreters in a folder, by the name of their environment; each says what it is told to."""

    folder: Path
    says: dict[str, Outcome] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    environs: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        self.asked.append(str(Path(command.argv[0]).relative_to(self.folder)))
        self.environs.append(dict(command.env))
        return self.says[Path(command.argv[0]).parent.parent.name]

    def make(self, name: str, *, program: str = "python", **facts: Any) -> Path:
        """Make an environment and return its folder."""
        prefix = self.folder / name
        path = prefix / "bin" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755)
        known = {"python": str(path), "version": "3.12.1", "prefix": str(prefix), **facts}
        self.says[name] = Outcome(0, f"noise\n{inquiry.MARK}{json.dumps(known)}\nmore noise\n")
        return prefix

    def with_torch(self, name: str, version: str = "2.11.0+cu130", **facts: Any) -> Path:
        """Make an environment with a PyTorch for CUDA 13.0."""
        torch = {"torch": version.partition("+")[0], "calls_itself": version, "cuda": "13.0", "folder": "/site"}
        return self.make(name, **{**torch, **facts})

    def inquirer(self, *path: Path, own: str = "own", own_torch: str = "", **environ: Path) -> Inquirer:
        """Return what asks, with these environments on PATH."""
        variables = {name: str(folder) for name, folder in environ.items()}
        variables["PATH"] = os.pathsep.join(str(folder / "bin") for folder in path)
        return Inquirer(Programs(self, variables), Path("/bytecode"), self.folder / own, own_torch)


@pytest.fixture
def made(tmp_path: Path) -> Interpreters:
    return Interpreters(tmp_path)


def test_a_virtual_environment_comes_before_conda_and_path(made: Interpreters) -> None:
    venv, conda, container = (made.with_torch(name) for name in ("venv", "conda", "container"))
    found = made.inquirer(container, VIRTUAL_ENV=venv, CONDA_PREFIX=conda).active().installed
    assert found is not None
    assert (found.prefix, found.named_by) == (str(venv), "VIRTUAL_ENV")
    assert str(found) == f"PyTorch 2.11.0+cu130 of {venv} (VIRTUAL_ENV)"
    assert made.asked == ["venv/bin/python"]


def test_conda_comes_before_path(made: Interpreters) -> None:
    conda, container = made.with_torch("conda"), made.with_torch("container")
    found = made.inquirer(container, CONDA_PREFIX=conda).active().installed
    assert found is not None and found.place == f"{conda} (CONDA_PREFIX)"


@pytest.mark.parametrize("program", ["python3", "python"])
def test_a_containers_python_is_the_one_on_path(made: Interpreters, program: str) -> None:
    usr = made.with_torch("usr", program=program)
    found = made.inquirer(usr).active().installed
    assert found is not None and found.named_by == f"{program} on PATH"


def test_the_first_environment_decides_also_where_it_has_no_pytorch(made: Interpreters) -> None:
    venv, conda = made.make("venv"), made.with_torch("conda")
    seen = made.inquirer(VIRTUAL_ENV=venv, CONDA_PREFIX=conda).active()
    assert seen.installed is None
    assert seen.passed == ((f"{venv} (VIRTUAL_ENV)", "it has no PyTorch"),)
    assert seen.unfit is not None and seen.unfit.prefix == str(venv)


def test_a_variable_that_names_no_environment_is_passed_over(made: Interpreters) -> None:
    usr = made.with_torch("usr")
    found = made.inquirer(usr, VIRTUAL_ENV=Path("/gone")).active().installed
    assert found is not None and found.prefix == str(usr)


def test_the_environment_of_attnforge_is_not_active_without_a_pytorch(made: Interpreters) -> None:
    own, usr = made.make("own"), made.with_torch("usr")
    found = made.inquirer(own, usr, VIRTUAL_ENV=own).active().installed
    assert found is not None and found.prefix == str(usr)
    assert made.asked == ["usr/bin/python"]


def test_the_environment_of_attnforge_counts_with_a_pytorch_for_cuda(made: Interpreters) -> None:
    own, usr = made.with_torch("own"), made.with_torch("usr")
    found = made.inquirer(own, usr, own_torch="2.11.0", VIRTUAL_ENV=own).active().installed
    assert found is not None and found.place == f"{own} (VIRTUAL_ENV)"


def test_the_environment_of_attnforge_comes_last_where_it_is_not_active(made: Interpreters) -> None:
    own, usr = made.with_torch("own"), made.make("usr")
    seen = made.inquirer(usr, own_torch="2.11.0").active()
    assert seen.installed is not None and seen.installed.place == f"{own} (the environment of attnforge)"
    assert [place for place, _ in seen.passed] == [f"{usr} (python on PATH)"]


def test_no_interpreter_at_all(made: Interpreters) -> None:
    assert made.inquirer().active().installed is None
    assert made.asked == []


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"cuda": ""}, "its PyTorch 2.11.0+cpu is built without CUDA"),
        ({"cuda": "", "rocm": "6.4"}, "its PyTorch 2.11.0+cpu is built for AMD GPUs (ROCm 6.4)"),
        ({"trouble": "ImportError: x"}, "its PyTorch 2.11.0+cpu can't be imported: ImportError: x"),
    ],
)
def test_a_pytorch_that_is_not_for_cuda_or_broken_is_not_active(
    made: Interpreters, facts: dict[str, str], why: str
) -> None:
    venv = made.with_torch("venv", "2.11.0+cpu", **facts)
    seen = made.inquirer(VIRTUAL_ENV=venv).active()
    assert seen.installed is None
    assert seen.passed == ((f"{venv} (VIRTUAL_ENV)", why),)


def test_the_interpreter_gets_what_a_container_and_conda_set_and_nothing_that_writes(made: Interpreters) -> None:
    venv = made.with_torch("venv")
    made.inquirer(VIRTUAL_ENV=venv, LD_LIBRARY_PATH=Path("/hpcx/lib"), PYTHONPATH=Path("/src"), CC=Path("/c")).active()
    (environ,) = made.environs
    assert (environ["LD_LIBRARY_PATH"], environ["PYTHONPATH"]) == ("/hpcx/lib", "/src")
    assert "CC" not in environ


def test_an_environment_is_named_by_its_folder_its_interpreter_or_a_name_on_path(made: Interpreters) -> None:
    venv = made.with_torch("venv")
    inquirer = made.inquirer(venv)
    for place in (str(venv), str(venv / "bin/python"), "python"):
        assert inquirer.look_at(place).place == f"{venv} (--env)"


def test_a_place_without_an_interpreter_is_refused(made: Interpreters, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="there is no environment") as caught:
        made.inquirer().look_at(str(tmp_path / "empty"))
    assert caught.value.why == "it has no bin/python"
    for place in ("nothing", "/a/b", "~nobody/x", "a" * 5000, "/" + "b" * 300, "\0"):
        with pytest.raises(RequestError, match="there is no environment"):
            made.inquirer().look_at(place)
        assert interpreter_of(place) is None


def test_an_interpreter_that_does_not_answer_is_an_error_with_the_command_that_shows_it(made: Interpreters) -> None:
    venv = made.make("venv")
    made.says["venv"] = Outcome(1, "Fatal Python error: init_fs_encoding\n")
    with pytest.raises(HostError) as caught:
        made.inquirer().look_at(str(venv))
    assert caught.value.why == "Fatal Python error: init_fs_encoding"
    assert str(venv / "bin/python") in caught.value.hint


# --- what an answer means


def answer(*documents: dict[str, Any], code: int = 0, timed_out: bool = False) -> Installed | str:
    text = "".join(f"{inquiry.MARK}{json.dumps(document)}\n" for document in documents)
    return read_answer(Outcome(code, text, timed_out), Path("/e/bin/python"), "--env")


PYTHON = {"python": "/e/bin/python", "version": "3.12.1", "prefix": "/e"}
TORCH = {"torch": "2.11.0", "calls_itself": "2.11.0+cu130", "cuda": "13.0", "trouble": "importing it ended the process"}


def test_a_crash_while_pytorch_is_imported_leaves_what_was_said_before() -> None:
    found = answer(PYTHON, TORCH, code=-11)
    assert isinstance(found, Installed)
    assert found.shortcoming == (
        "its PyTorch 2.11.0+cu130 can't be imported: importing it ended the process (signal 11)"
    )


def test_an_import_that_takes_too_long_is_trouble() -> None:
    found = answer(PYTHON, TORCH, code=-9, timed_out=True)
    assert isinstance(found, Installed) and "not done after" in found.trouble


def test_an_interpreter_that_hangs_says_nothing() -> None:
    assert answer(PYTHON, timed_out=True, code=-9) == f"no answer within {active.SECONDS:g} seconds"


def test_an_answer_that_ended_well_stays_when_the_interpreter_crashes_at_its_end() -> None:
    found = answer(PYTHON, TORCH, {"trouble": ""}, code=-11)
    assert isinstance(found, Installed) and not found.shortcoming


@pytest.mark.parametrize("document", [{"version": 3}, {**PYTHON, "unknown": 1}, {**PYTHON, "search": "no list"}])
def test_an_answer_that_is_no_answer_is_told(document: dict[str, Any]) -> None:
    assert "can't be understood" in str(answer(document))


def test_the_patch_of_cuda_does_not_count() -> None:
    found = answer(PYTHON, {**TORCH, "cuda": "12.8.1", "trouble": ""})
    assert isinstance(found, Installed) and found.cuda == "12.8"


def test_an_interpreter_of_a_folder(tmp_path: Path) -> None:
    assert interpreter_in(tmp_path) is None
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text("")
    assert interpreter_in(tmp_path) is None
    python.chmod(0o755)
    assert interpreter_in(tmp_path) == python


# --- what a real interpreter says


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Installed]:
    """Put a package torch where this interpreter finds it, and ask."""
    folder = tmp_path / "site"

    def make(
        version: str = "2.11.0+cu130",
        cuda: str | None = "13.0",
        hip: str | None = None,
        init: str = "from torch import version\n",
        distributed: str = "",
        record: str = "",
    ) -> Installed:
        (folder / "torch").mkdir(parents=True, exist_ok=True)
        (folder / "torch" / "version.py").write_text(VERSION.format(version=version, cuda=cuda, hip=hip))
        (folder / "torch" / "__init__.py").write_text(init)
        if distributed:
            info = folder / f"torch-{distributed}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {distributed}\n")
            if record:
                (info / "RECORD").write_text(record)
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
        inquirer = Inquirer(Programs(run, environ), tmp_path / "bytecode")
        found = inquirer.look_at(sys.executable)
        assert sorted(folder.rglob("*.pyc")) == []
        return found

    return make


@pytest.mark.parametrize(
    ("version", "distributed"),
    [
        ("2.11.0+cu130", "2.11.0"),
        ("2.6.0a0+ecf3bae40a.nv25.01", "2.6.0a0+ecf3bae40a.nv25.1"),
        ("2.12.0.dev20260101+cu130", "2.12.0.dev20260101+cu130"),
        ("2.12.0a0+git1234", ""),
    ],
)
def test_versions_as_they_are_installed(site: Callable[..., Installed], version: str, distributed: str) -> None:
    found = site(version, distributed=distributed)
    assert (found.calls_itself, found.torch) == (version, distributed or version)
    assert (found.cuda, found.git, found.shortcoming) == ("13.0", "abc123", "")
    assert found.minor == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (Path(found.folder) / "torch").is_dir() and found.folder in found.search


def test_without_cuda_it_is_not_imported(site: Callable[..., Installed]) -> None:
    found = site("2.11.0+cpu", cuda=None, init="raise SystemExit('imported')")
    assert found.shortcoming == "its PyTorch 2.11.0+cpu is built without CUDA"


def test_rocm(site: Callable[..., Installed]) -> None:
    assert site("2.11.0+rocm6.4", cuda=None, hip="6.4.1").rocm == "6.4.1"


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("raise ImportError('libcudnn.so.9: cannot open')", "ImportError: libcudnn.so.9: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "importing it ended the process (signal 11)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_broken_pytorch_says_what_is_wrong(site: Callable[..., Installed], init: str, said: str) -> None:
    found = site(init=init)
    assert found.trouble == said
    assert found.shortcoming == f"its PyTorch 2.11.0+cu130 can't be imported: {said}"


def test_the_old_abi(site: Callable[..., Installed]) -> None:
    init = "from torch import version\nclass _C:\n    _GLIBCXX_USE_CXX11_ABI = False\n"
    assert site("2.6.0+cu124", cuda="12.4", init=init).cxx11_abi is False


def test_what_is_left_of_a_pytorch_that_was_removed_is_none(site: Callable[..., Installed], tmp_path: Path) -> None:
    (tmp_path / "site" / "torch" / "lib").mkdir(parents=True)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site")}
    found = Inquirer(Programs(run, environ), tmp_path / "bytecode").look_at(sys.executable)
    assert (found.torch, found.shortcoming) == ("", "it has no PyTorch")


ROW = "torch/include/a.h,sha256=1,2\n"


def test_the_digest_is_that_of_the_record_whatever_installer_wrote_it(site: Callable[..., Installed]) -> None:
    first = site(distributed="2.11.0", record=f"torch/version.py,sha256=3,4\n{ROW}torch-2.11.0.dist-info/RECORD,,\n")
    torch = Path(first.folder) / "torch-2.11.0.dist-info" / "RECORD"
    torch.write_text(f"{ROW}torch/__pycache__/a.pyc,sha256=9,9\ntorch/version.py,sha256=3,4\nother/a.py,sha256=5,6\n")
    assert site().digest == first.digest
    torch.write_text("torch/include/a.h,sha256=7,2\ntorch/version.py,sha256=3,4\n")
    assert site().digest != first.digest


def test_the_digest_of_a_pytorch_without_a_record_is_that_of_its_headers(
    site: Callable[..., Installed], tmp_path: Path
) -> None:
    header = tmp_path / "site" / "torch" / "include" / "torch" / "csrc" / "api" / "include" / "torch" / "all.h"
    header.parent.mkdir(parents=True)
    header.write_text("#if !defined(_MSC_VER) && __cplusplus < 201703L\n#error\n#endif\n")
    first = site("2.12.0a0+git1234")
    assert first.cxx == 17
    assert site("2.12.0a0+git1234").digest == first.digest
    header.write_text("#if !defined(_MSC_VER) && __cplusplus < 202002L\n#error\n#endif\n")
    second = site("2.12.0a0+git1234")
    assert second.cxx == 20
    assert second.digest != first.digest


def test_the_inquiry_says_what_it_says_without_a_site(tmp_path: Path) -> None:
    text = Path(inquiry.__file__).read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-B", "-c", text], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().startswith(inquiry.MARK)


@pytest.mark.parametrize(
    "name", ["libcudart.so.12", "libcublasLt.so.13.1.0", "libc10.so", "libnvrtc.so.13", "libnccl.so.2"]
)
def test_libraries_of_pytorch_and_cuda(name: str) -> None:
    assert inquiry.LIBRARY.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["libcuda.so.1", "libnvidia-ml.so.1", "libc.so.6", "libstdc++.so.6", "libcudart.so.py"]
)
def test_the_machines_own_libraries_are_not_pytorchs(name: str) -> None:
    assert not inquiry.LIBRARY.fullmatch(name)
