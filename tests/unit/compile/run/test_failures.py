from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from attnforge.compile.run.failures import explain, no_space, out_of_memory, was_killed, write_rerun
from attnforge.errors import BuildError, HostError
from attnforge.model.graph import GeneratedFile, Language, Unit


def unit(tmp_path: Path, *argv: str, source: str = "kernel.cu") -> Unit:
    folder = tmp_path / "ein Ördner"
    folder.mkdir(exist_ok=True)
    return Unit(f"{folder}/a.o", (f"{folder}/{source}",), argv, str(folder), Language.CUDA)


def test_the_script_runs_the_unit_as_the_build_did(tmp_path: Path) -> None:
    one = unit(tmp_path, "/bin/sh", "-c", 'pwd -P; echo "$A|$HOME|$1"', "sh", "it's $HOME")
    script = write_rerun(tmp_path, one, {"A": "x y'z\nü", "PATH": os.defpath})
    assert script.name == "rerun-kernel.cu.sh"
    result = subprocess.run(
        ["sh", str(script)], env={"HOME": "/home", "A": "wrong"}, capture_output=True, text=True, check=True
    )
    assert result.stdout == f"{Path(one.cwd).resolve()}\nx y'z\nü||it's $HOME\n"


def test_the_script_holds_no_credentials(tmp_path: Path) -> None:
    environment = {
        "UV_INDEX_URL": "https://user:hunter2@example.org/simple",
        "HF_TOKEN": "hunter2",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "TMPDIR": "/gone",
        "BASH_FUNC_x%%": "() { hunter2; }",
        "CUDA_HOME": "/cuda",
    }
    script = write_rerun(tmp_path, unit(tmp_path, "true"), environment)
    text = script.read_text()
    assert "hunter2" not in text and "TMPDIR" not in text and "CUDA_HOME=/cuda" in text
    assert stat.S_IMODE(script.stat().st_mode) == 0o700


def test_a_strange_name_stays_in_the_folder(tmp_path: Path) -> None:
    script = write_rerun(tmp_path, unit(tmp_path, "true", source="a\nb 'c'.cu"), {"PATH": os.defpath})
    assert script.parent == tmp_path and script.name == "rerun-a_b__c_.cu.sh"
    subprocess.run(["sh", str(script)], check=True)


def test_a_failure_names_the_unit_and_the_script(tmp_path: Path) -> None:
    error = explain(unit(tmp_path), 1, "kernel.cu(3): error: nonsense\n", tmp_path / "re run.sh", [tmp_path])
    assert isinstance(error, BuildError)
    assert "kernel.cu" in str(error) and "nonsense" in str(error) and f"sh '{tmp_path}/re run.sh'" in str(error)


@pytest.mark.parametrize("place", ["/g/ours.h:12:26", "/g/ours.h(12)"], ids=["gcc", "nvcc"])
def test_an_error_in_a_generated_file_is_our_own_fault(tmp_path: Path, place: str) -> None:
    log = f"In file included from <command-line>:\n{place}: error: 'PhiloxCudaState' is not a member of 'at'\n"
    files = [GeneratedFile("/g/other.h", ""), GeneratedFile("/g/ours.h", "")]
    error = explain(unit(tmp_path), 1, log, tmp_path / "rerun.sh", [tmp_path], files)
    assert error.exit_code == 1
    assert "PhiloxCudaState" in error.what and "/g/ours.h" in error.why and "report" in error.hint


def test_an_error_elsewhere_is_not(tmp_path: Path) -> None:
    log = "In file included from /g/ours.h:3:\n/torch/a.h:1:1: error: nonsense\n"
    error = explain(unit(tmp_path), 1, log, tmp_path / "rerun.sh", [tmp_path], [GeneratedFile("/g/ours.h", "")])
    assert isinstance(error, BuildError)


def test_a_full_disk_is_the_machines(tmp_path: Path) -> None:
    log = "fatal error: error writing to /tmp/ccA1.s: No space left on device\n"
    error = explain(unit(tmp_path), 1, log, tmp_path / "rerun.sh", [tmp_path / "not" / "yet"])
    assert isinstance(error, HostError)
    assert "GB free" in error.why and "TMPDIR" in error.hint


def test_free_space_is_told_of_each_folder(tmp_path: Path) -> None:
    assert no_space("full", [tmp_path, Path("/")]).why.count("GB free") == 2


def test_a_second_kill_tells_the_numbers(tmp_path: Path) -> None:
    error = out_of_memory(unit(tmp_path), 2, 6_200_000_000, 8_000_000_000, 12_000_000_000, tmp_path / "rerun.sh")
    assert isinstance(error, BuildError)
    assert "6.2 GB" in error.why and "8.0 GB" in error.why and "12.0 GB" in error.why
    assert "killed twice" in error.what and "no other compiler beside it" in error.why
    assert "--memory" in error.hint and "limit" in error.hint


def test_kills_are_told_apart() -> None:
    assert was_killed(-9, "") and was_killed(137, "") and not was_killed(1, "error: nonsense")
