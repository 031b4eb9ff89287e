from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO

import pytest

from attnforge.host.graphics import find_graphics
from attnforge.host.interpreters import find_interpreters
from attnforge.host.machine import find_disks, find_libc
from attnforge.host.probe import probe
from attnforge.host.programs import Programs
from attnforge.host.toolkits import find_compilers, find_toolkits
from attnforge.model.host import Toolkit
from attnforge.paths import Folders
from attnforge.process import Command, Outcome

NVCC = """\
nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Wed_Aug_20_01:58:59_PM_PDT_2025
Cuda compilation tools, release {release}, V{build}
Build cuda_13.0.r13.0/compiler.36424714_0
"""

SMI = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
"""


@dataclass
class FakeRunner:
    """Answers commands by the path of their program; what it does not know can't be started."""

    answers: dict[str, Callable[[tuple[str, ...]], Outcome]] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        self.commands.append(command)
        if command.argv[0] not in self.answers:
            raise FileNotFoundError(command.argv[0])
        return self.answers[command.argv[0]](command.argv[1:])

    def say(self, program: Path, text: str, code: int = 0) -> None:
        self.answers[str(program)] = lambda _: Outcome(code, text)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def toolkit(runner: FakeRunner, home: Path, release: str = "13.0", build: str = "13.0.88") -> Path:
    header = home / "include/cuda_runtime.h"
    header.parent.mkdir(parents=True)
    header.touch()
    nvcc = executable(home / "bin/nvcc")
    runner.say(nvcc, NVCC.format(release=release, build=build))
    return nvcc


def programs(runner: FakeRunner, *folders: Path, **environ: str) -> Programs:
    return Programs(runner, {"PATH": os.pathsep.join(map(str, folders)), **environ})


class TestPrograms:
    def test_a_failure_a_missing_program_and_a_directory_say_nothing(self, runner: FakeRunner, tmp_path: Path) -> None:
        runner.say(tmp_path / "fails", "version 1.2", code=1)
        asked = programs(runner, tmp_path)
        (tmp_path / "folder").mkdir()
        (tmp_path / "plain").touch()
        assert asked.ask(tmp_path / "fails") == ""
        assert asked.ask(tmp_path / "missing") == ""
        assert asked.find("folder") is None
        assert asked.find("plain") is None

    def test_children_get_a_clean_environment_a_limit_and_path(self, runner: FakeRunner, tmp_path: Path) -> None:
        runner.say(tmp_path / "x", "x 1.2.3rc1 (2024.1)")
        asked = programs(runner, tmp_path, CUDA_HOME="/cuda", HOME="/home/me", LD_PRELOAD="evil.so")
        assert asked.version(tmp_path / "x", "--version") == "1.2.3rc1"
        (command,) = runner.commands
        assert command.env == {"PATH": str(tmp_path), "HOME": "/home/me"}
        assert command.timeout is not None

    def test_relative_and_empty_folders_of_path_are_not_searched(self, runner: FakeRunner, tmp_path: Path) -> None:
        asked = Programs(runner, {"PATH": f":.:bin:{tmp_path}:{tmp_path}"})
        assert asked.folders == (tmp_path,)
        assert Programs(runner, {}).folders == ()


class TestToolkits:
    def test_none(self, runner: FakeRunner, tmp_path: Path) -> None:
        assert find_toolkits(programs(runner), tmp_path) == ()

    def test_the_order_is_cuda_home_path_and_the_usual_folders(self, runner: FakeRunner, tmp_path: Path) -> None:
        toolkit(runner, tmp_path / "usr/local/cuda-12.4", "12.4", "12.4.131")
        toolkit(runner, tmp_path / "usr/local/cuda-12.8", "12.8", "12.8.93")
        toolkit(runner, tmp_path / "mine", "13.0", "13.0.88")
        toolkit(runner, tmp_path / "conda", "12.9", "12.9.86")
        asked = programs(runner, tmp_path / "conda/bin", CUDA_HOME=str(tmp_path / "mine"))
        found = find_toolkits(asked, tmp_path)
        assert [(kit.cuda, kit.nvcc) for kit in found] == [
            ("13.0", "13.0.88"),
            ("12.9", "12.9.86"),
            ("12.8", "12.8.93"),
            ("12.4", "12.4.131"),
        ]
        assert found[0].home == str((tmp_path / "mine").resolve())

    def test_links_to_one_home_are_one_toolkit(self, runner: FakeRunner, tmp_path: Path) -> None:
        nvcc = toolkit(runner, tmp_path / "usr/local/cuda-13.0")
        (tmp_path / "usr/local/cuda").symlink_to("cuda-13.0")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/nvcc").symlink_to(nvcc)
        runner.answers[str(tmp_path / "bin/nvcc")] = runner.answers[str(nvcc)]
        found = find_toolkits(programs(runner, tmp_path / "bin"), tmp_path)
        assert [kit.home for kit in found] == [str((tmp_path / "usr/local/cuda-13.0").resolve())]

    def test_a_wrapper_is_asked_for_its_home(self, runner: FakeRunner, tmp_path: Path) -> None:
        toolkit(runner, tmp_path / "lib/cuda")
        wrapper = executable(tmp_path / "bin/nvcc")
        top = f"#$ _NVVM_BRANCH_=nvvm\n#$ TOP={tmp_path}/lib/cuda/bin/..\n#$ PATH=x\n"
        runner.answers[str(wrapper)] = lambda argv: Outcome(
            0, top if "--dryrun" in argv else NVCC.format(release="13.0", build="13.0.88")
        )
        (found,) = find_toolkits(programs(runner, tmp_path / "bin"), tmp_path)
        assert found.home == str((tmp_path / "lib/cuda").resolve())

    def test_headers_of_a_conda_package_lie_under_targets(self, runner: FakeRunner, tmp_path: Path) -> None:
        nvcc = executable(tmp_path / "env/bin/nvcc")
        header = tmp_path / "env/targets/x86_64-linux/include/cuda_runtime.h"
        header.parent.mkdir(parents=True)
        header.touch()
        runner.say(nvcc, NVCC.format(release="12.8", build="12.8.93"))
        (found,) = find_toolkits(programs(runner, tmp_path / "env/bin"), tmp_path)
        assert found.cuda == "12.8"

    def test_an_nvcc_without_headers_or_without_an_answer_is_none(self, runner: FakeRunner, tmp_path: Path) -> None:
        runner.say(executable(tmp_path / "a/bin/nvcc"), NVCC.format(release="13.0", build="13.0.88"))
        broken = toolkit(runner, tmp_path / "b")
        runner.say(broken, "cannot execute binary file", code=126)
        assert find_toolkits(programs(runner, tmp_path / "a/bin", tmp_path / "b/bin"), tmp_path) == ()


class TestCompleteness:
    """What is missing in a toolkit, and what its headers say of glibc."""

    def whole(self, runner: FakeRunner, home: Path) -> Path:
        nvcc = toolkit(runner, home, "12.8", "12.8.93")
        for name in ("bin/cudafe++", "nvvm/bin/cicc", "bin/ptxas", "bin/fatbinary", "lib64/libcudart.so"):
            executable(home / name)
        for name in ("crt/host_runtime.h", "cuda_fp16.h", "nv/target"):
            executable(home / "include" / name)
        return nvcc

    def found(self, runner: FakeRunner, folder: Path, **environ: str) -> Toolkit:
        (found,) = find_toolkits(programs(runner, folder / "bin", **environ), folder / "nowhere")
        return found

    def tells(self, runner: FakeRunner, home: Path, settings: str) -> None:
        version = NVCC.format(release="12.8", build="12.8.93")
        runner.answers[str(home / "bin/nvcc")] = lambda argv: Outcome(0, settings if "--dryrun" in argv else version)

    def test_a_whole_one(self, runner: FakeRunner, tmp_path: Path) -> None:
        self.whole(runner, tmp_path)
        assert self.found(runner, tmp_path).lacks == ()
        assert self.found(runner, tmp_path).named_by == ""
        assert self.found(runner, tmp_path, CUDA_PATH=str(tmp_path)).named_by == "CUDA_PATH"

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("include/nv/target", "nv/target (cuda_cccl)"),
            ("include/cuda_fp16.h", "cuda_fp16.h (cuda_cudart)"),
            ("include/crt/host_runtime.h", "crt/host_runtime.h (cuda_crt, or cuda_nvcc before 13.0)"),
            ("nvvm/bin/cicc", "cicc (libnvvm, or cuda_nvcc before 13.0)"),
            ("bin/ptxas", "ptxas (cuda_nvcc)"),
            ("lib64/libcudart.so", "libcudart.so (cuda_cudart)"),
        ],
    )
    def test_what_is_missing_is_named(self, runner: FakeRunner, tmp_path: Path, name: str, says: str) -> None:
        self.whole(runner, tmp_path)
        (tmp_path / name).unlink()
        self.tells(runner, tmp_path, f"#$ PATH={tmp_path}/nvvm/bin:{tmp_path}/bin\n")
        assert self.found(runner, tmp_path).lacks == (says,)

    def test_where_nvcc_tells_nothing_its_programs_may_be_anywhere(self, runner: FakeRunner, tmp_path: Path) -> None:
        self.whole(runner, tmp_path)
        (tmp_path / "bin/ptxas").unlink()
        assert self.found(runner, tmp_path).lacks == ()

    def test_what_nvcc_finds_elsewhere_is_not_missing(self, runner: FakeRunner, tmp_path: Path) -> None:
        nvcc = self.whole(runner, tmp_path / "cuda")
        for name in ("include/nv/target", "bin/ptxas", "lib64/libcudart.so"):
            (tmp_path / "cuda" / name).unlink()
        for name in ("headers/nv/target", "programs/ptxas", "libraries/libcudart.so"):
            executable(tmp_path / name)
        told = (
            f'#$ PATH=/bin:{tmp_path}/programs\n#$ INCLUDES="-I{tmp_path}/headers"  \n'
            f'#$ LIBRARIES=  "-L{tmp_path}/libraries/stubs" "-L{tmp_path}/libraries"\n'
        )
        self.tells(runner, nvcc.parent.parent, told)
        assert self.found(runner, tmp_path / "cuda").lacks == ()

    @pytest.mark.parametrize(("part", "place"), [("nv/target", "include/cccl"), ("cuda_fp16.h", "targets/x/include")])
    def test_later_layouts(self, runner: FakeRunner, tmp_path: Path, part: str, place: str) -> None:
        self.whole(runner, tmp_path)
        (tmp_path / "include" / part).unlink()
        executable(tmp_path / place / part)
        assert self.found(runner, tmp_path).lacks == ()

    @pytest.mark.parametrize(
        ("text", "bound"),
        [
            ("extern double rsqrt(double x);\nextern double   sinpi(double x);", "2.40"),
            ("extern double rsqrt(double x);\nextern double sinpi(double x) __NV_IEC_SPECIFIER;", "2.41"),
            ("extern double rsqrt(double x) _NV_SPECIFIER;\nextern double sinpi(double x) noexcept(true);", ""),
            ("", ""),
        ],
    )
    def test_the_glibc_that_headers_allow_for(self, runner: FakeRunner, tmp_path: Path, text: str, bound: str) -> None:
        self.whole(runner, tmp_path)
        (tmp_path / "include/crt/math_functions.h").write_text(text)
        assert self.found(runner, tmp_path).max_glibc == bound


class TestCompilers:
    def test_cxx_comes_first_and_each_real_compiler_once(self, runner: FakeRunner, tmp_path: Path) -> None:
        real = executable(tmp_path / "bin/x86_64-linux-gnu-g++-12")
        newer = executable(tmp_path / "bin/g++-14")
        clang = executable(tmp_path / "bin/clang++-17")
        for name in ("g++", "c++", "g++-12"):
            (tmp_path / "bin" / name).symlink_to(real)
            runner.say(tmp_path / "bin" / name, "12.2.0\n")
        runner.say(newer, "14.1.0\n")
        runner.say(clang, "17.0.6\n")
        found = find_compilers(programs(runner, tmp_path / "bin", CXX="g++-14 -m64"))
        assert [(one.name, one.version, Path(one.path).name) for one in found] == [
            ("g++", "14.1.0", "g++-14"),
            ("g++", "12.2.0", "c++"),
            ("clang++", "17.0.6", "clang++-17"),
        ]

    @pytest.mark.parametrize(
        ("answer", "shared"),
        [("/usr/lib/gcc/x86_64-linux-gnu/13/libstdc++.so\n", True), ("libstdc++.so\n", False), ("", True)],
    )
    def test_a_compiler_without_the_shared_cxx_library_is_told_apart(
        self, tmp_path: Path, answer: str, shared: bool
    ) -> None:
        def run(command: Command, log: object = None) -> Outcome:
            return Outcome(0, answer if command.argv[1].startswith("-print-file-name") else "13.3.0\n")

        executable(tmp_path / "g++")
        (found,) = find_compilers(Programs(run, {"PATH": str(tmp_path)}))
        assert found.has_shared_cxx is shared

    @pytest.mark.parametrize("cxx", ["", "missing", "/nowhere/g++", "'unclosed", "./g++"])
    def test_a_cxx_that_is_not_there_is_passed_over(self, runner: FakeRunner, tmp_path: Path, cxx: str) -> None:
        runner.say(executable(tmp_path / "g++"), "12.2.0\n")
        assert [one.version for one in find_compilers(programs(runner, tmp_path, CXX=cxx))] == ["12.2.0"]

    def test_an_alternative_that_is_clang_is_named_so(self, runner: FakeRunner, tmp_path: Path) -> None:
        executable(tmp_path / "lib/clang-17")
        (tmp_path / "c++").symlink_to(tmp_path / "lib/clang-17")
        runner.say(tmp_path / "c++", "17.0.6\n")
        (found,) = find_compilers(programs(runner, tmp_path))
        assert found.name == "clang++"
        assert runner.commands[0].argv[1:] == ("-dumpversion",)

    def test_other_programs_are_no_compilers(self, runner: FakeRunner, tmp_path: Path) -> None:
        for name in ("g++-mapper-server", "clang++-format", "xg++", "g++-12.bak"):
            runner.say(executable(tmp_path / name), "1.0.0\n")
        runner.say(executable(tmp_path / "g++"), "no version\n")
        assert find_compilers(programs(runner, tmp_path)) == ()


class TestInterpreters:
    def test_path_pyenv_and_uv_each_once(self, runner: FakeRunner, tmp_path: Path) -> None:
        home, bin_folder = tmp_path / "home", tmp_path / "bin"
        system = executable(bin_folder / "python3.11")
        (bin_folder / "python3").symlink_to(system)
        shim = executable(home / ".pyenv/shims/python3")
        old, newer = (executable(home / f".pyenv/versions/{version}/bin/python3") for version in ("3.8.18", "3.12.1"))
        managed = executable(tmp_path / "uv/python3.13")
        runner.say(system, "3.11.2 1\n")
        runner.say(newer, "3.12.1 0\n")
        runner.say(managed, "3.13.0 1\n")
        listing = [{"path": str(managed)}, {"path": str(system)}]
        runner.say(tmp_path / "uv/uv", f"warning: something\n{json.dumps(listing)}\n")
        asked = programs(runner, shim.parent, bin_folder, HOME=str(home))
        found = find_interpreters(asked, str(tmp_path / "uv/uv"))
        assert [(one.version, one.has_headers) for one in found] == [
            ("3.11.2", True),
            ("3.12.1", False),
            ("3.13.0", True),
        ]
        started = {command.argv[0] for command in runner.commands}
        assert str(shim) not in started
        assert str(old) not in started

    def test_uv_does_not_get_our_path(self, runner: FakeRunner, tmp_path: Path) -> None:
        runner.say(tmp_path / "uv", "[]")
        assert find_interpreters(programs(runner, tmp_path), str(tmp_path / "uv")) == ()
        assert runner.commands[0].env["PATH"] == ""

    @pytest.mark.parametrize("listing", ["", "[", "[1]", '[{"no": "path"}]', "nothing"])
    def test_a_uv_that_answers_nonsense(self, runner: FakeRunner, tmp_path: Path, listing: str) -> None:
        runner.say(tmp_path / "uv", listing)
        assert find_interpreters(programs(runner, tmp_path), str(tmp_path / "uv")) == ()

    @pytest.mark.parametrize("answer", ["", "2.7.18 1", "3.8.1 1", "pyenv: python3.9: command not found", "3.11 1"])
    def test_interpreters_that_are_too_old_or_do_not_answer(
        self, runner: FakeRunner, tmp_path: Path, answer: str
    ) -> None:
        runner.say(executable(tmp_path / "python3.9"), answer)
        assert find_interpreters(programs(runner, tmp_path), "") == ()

    def test_a_free_threaded_interpreter_is_told_apart(self, runner: FakeRunner, tmp_path: Path) -> None:
        runner.say(executable(tmp_path / "python3.14"), "3.14.2t 1\n")
        (found,) = find_interpreters(programs(runner, tmp_path), "")
        assert (found.version, found.free_threaded, found.has_headers) == ("3.14.2", True, True)

    def test_the_question_is_answered_by_a_real_interpreter(self, tmp_path: Path) -> None:
        import sys

        from attnforge import process

        (tmp_path / "python3").symlink_to(Path(sys.executable).resolve())
        (found,) = find_interpreters(Programs(process.run, {"PATH": str(tmp_path), "HOME": str(tmp_path)}), "")
        assert found.version == ".".join(map(str, sys.version_info[:3]))


class TestGraphics:
    def test_no_driver(self, runner: FakeRunner, tmp_path: Path) -> None:
        assert find_graphics(programs(runner, tmp_path)).gpus == ()

    def test_gpus_driver_and_its_cuda(self, runner: FakeRunner, tmp_path: Path) -> None:
        smi = executable(tmp_path / "nvidia-smi")
        rows = "NVIDIA H200, 9.0, 580.159.04\nNVIDIA L40S, 8.9, 580.159.04\n"
        runner.answers[str(smi)] = lambda argv: Outcome(0, rows if argv else SMI)
        found = find_graphics(programs(runner, tmp_path))
        assert [(gpu.name, gpu.capability.dotted) for gpu in found.gpus] == [
            ("NVIDIA H200", "9.0"),
            ("NVIDIA L40S", "8.9"),
        ]
        assert (found.driver, found.driver_cuda) == ("580.159.04", "13.0")

    def test_an_old_driver_that_does_not_know_compute_cap(self, runner: FakeRunner, tmp_path: Path) -> None:
        smi = executable(tmp_path / "nvidia-smi")

        def answer(argv: tuple[str, ...]) -> Outcome:
            if not argv:
                return Outcome(0, SMI.replace("13.0", "11.4"))
            if "compute_cap" in argv[0]:
                return Outcome(2, 'Field "compute_cap" is not a valid field to query.\n')
            return Outcome(0, "Tesla T4, 470.82.01\nSome New Card, 470.82.01\n")

        runner.answers[str(smi)] = answer
        found = find_graphics(programs(runner, tmp_path))
        assert [(gpu.name, gpu.capability.dotted) for gpu in found.gpus] == [("Tesla T4", "7.5")]
        assert (found.driver, found.driver_cuda) == ("470.82.01", "11.4")

    @pytest.mark.parametrize("code", [0, 9])
    def test_a_driver_that_fails(self, runner: FakeRunner, tmp_path: Path, code: int) -> None:
        text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
        runner.say(executable(tmp_path / "nvidia-smi"), text, code)
        found = find_graphics(programs(runner, tmp_path))
        assert (found.gpus, found.driver, found.driver_cuda) == ((), "", "")

    def test_the_newer_header(self, runner: FakeRunner, tmp_path: Path) -> None:
        smi = executable(tmp_path / "nvidia-smi")
        header = SMI.replace("CUDA Version", "CUDA UMD Version")
        runner.answers[str(smi)] = lambda argv: Outcome(0, "NVIDIA B200, 10.0, 595.1\n" if argv else header)
        assert find_graphics(programs(runner, tmp_path)).driver_cuda == "13.0"


class TestDisks:
    def test_folders_that_do_not_exist_yet_are_those_above_them(self, tmp_path: Path) -> None:
        disks = find_disks(Folders(tmp_path / "not/yet"), {"TMPDIR": str(tmp_path)})
        assert [disk.purpose for disk in disks] == ["build", "cache", "temporary"]
        assert {disk.device for disk in disks} == {tmp_path.stat().st_dev}
        assert all(disk.free_bytes > 0 and disk.writable for disk in disks)
        assert disks[0].path == str(tmp_path / "not/yet/builds")

    def test_a_folder_that_can_not_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Not by its mode: root, whom containers run as, writes everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        assert [disk.writable for disk in find_disks(Folders(tmp_path / "cache"), {"TMPDIR": "/"})] == [
            False,
            False,
            True,
        ]


@pytest.mark.parametrize(("told", "libc"), [("glibc 2.36", "glibc 2.36"), (None, ""), ("", "")])
def test_libc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str | None, libc: str) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: told)
    assert find_libc(tmp_path) == libc


def test_musl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ld-musl-x86_64.so.1").touch()
    assert find_libc(tmp_path) == "musl"


def test_a_whole_machine(runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            return "2.11.0+cu130"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(tmp_path / "venv/uv"))
    root, bin_folder = tmp_path / "root", tmp_path / "bin"
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n", encoding="utf-8")
    toolkit(runner, root / "usr/local/cuda-13.0")
    runner.say(executable(bin_folder / "g++"), "12.2.0\n")
    runner.say(executable(bin_folder / "git"), "git version 2.39.5\n")
    runner.say(tmp_path / "venv/uv", "uv 0.9.5 (abcdef 2025-10-21)\n")
    python = executable(bin_folder / "python3.12")
    runner.answers[str(python)] = lambda argv: Outcome(0, "24.1\n" if "metadata" in argv[-1] else "3.12.1 1\n")
    environ = {"PATH": str(bin_folder), "HOME": str(tmp_path)}
    host = probe(environ, Folders(tmp_path / "cache"), runner, root)
    assert (host.uv, host.git, host.pip, host.torch) == ("0.9.5", "2.39.5", "24.1", "2.11.0+cu130")
    assert [kit.nvcc for kit in host.toolkits] == ["13.0.88"]
    assert [compiler.version for compiler in host.compilers] == ["12.2.0"]
    assert [(one.version, one.has_headers) for one in host.interpreters] == [("3.12.1", True)]
    assert (host.gpus, host.driver, host.driver_cuda) == ((), "", "")
    assert host.memory.total_bytes == 16000000 * 1024
    assert 1 <= host.cpus <= host.cpus_total
    assert type(host).model_validate(host.to_json()) == host


def test_a_bare_machine_is_no_error(runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str = "") -> str:
        raise FileNotFoundError(name)

    monkeypatch.setattr("uv.find_uv_bin", none)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 500 kB\n", encoding="utf-8")
    host = probe({}, Folders(tmp_path / "cache"), runner, tmp_path)
    assert (host.toolkits, host.compilers, host.uv, host.git) == ((), (), "", "")
