# ruff: noqa: E501 - what nvcc prints is long
from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnforge.compile import steps

DRYRUN = """\
#$ _SPACE_=
#$ PATH=/cuda/nvvm/bin:/cuda/bin:/usr/bin
#$ CICC_PATH=/cuda/nvvm/bin
#$ LD_LIBRARY_PATH=/cuda/lib:
#$ INCLUDES="-I/cuda/include"
#$ gcc -D__CUDA_ARCH__=900 -E -x c++ "a b.cu" -o "/tmp/tmpxft_00004be6_00000000-8_a.compute_90.cpp1.ii"
#$ -- Filter Dependencies -- > a.d
#$ cudafe++ --stub_file_name "tmpxft_00004be6_00000000-6_a.cudafe1.stub.c" --gen_module_id_file --module_id_file_name "/tmp/tmpxft_00004be6_00000000-4_a.module_id" "/tmp/tmpxft_00004be6_00000000-5_a.cpp4.ii"
#$ "$CICC_PATH/cicc" --module_id_file_name "/tmp/tmpxft_00004be6_00000000-4_a.module_id" "/tmp/tmpxft_00004be6_00000000-8_a.compute_90.cpp1.ii" -o "/tmp/tmpxft_00004be6_00000000-6_a.ptx"
#$ fatbinary "--image3=kind=elf,sm=90,file=/tmp/tmpxft_00004be6_00000000-11_a.cubin" --embedded-fatbin="/tmp/tmpxft_00004be6_00000000-3_a.fatbin.c"
#$ rm /tmp/tmpxft_00004be6_00000000-3_a.fatbin
"""


def test_the_steps_are_read() -> None:
    found = steps.parse(DRYRUN)
    assert [Path(command[0]).name for command in found.commands] == ["gcc", "cudafe++", "cicc", "fatbinary", "rm"]
    assert "a b.cu" in found.commands[0]
    assert found.commands[2][0] == "/cuda/nvvm/bin/cicc"
    assert found.environment["PATH"].startswith("/cuda/nvvm/bin")


def test_temporary_names_and_the_module_id_are_settled() -> None:
    one = steps.settle(steps.parse(DRYRUN), "/w", "/w/id")
    other = steps.settle(steps.parse(DRYRUN.replace("00004be6", "0000ffff")), "/w", "/w/id")
    assert one == other
    text = "\n".join(" ".join(command) for command in one.commands)
    assert "tmpxft" not in text
    assert "--gen_module_id_file" not in text
    assert text.count("--module_id_file_name /w/id") == 2
    assert "file=/w/unit-11_a.cubin" in text
    assert "--stub_file_name unit-6_a.cudafe1.stub.c" in text


@pytest.mark.parametrize("text", ["", "nothing here", "#$ gcc a && rm b", "#$ gcc $UNKNOWN", "#$ A=b", "#$ gcc -c a.c"])
def test_steps_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(steps.UnknownStepsError):
        steps.settle(steps.parse(text), "/w", "/w/id")


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["nvcc", "-MD", "-MF", "a.d", "-c", "a.cu"], ["nvcc", "-c", "a.cu"]),
        (["nvcc", "-c", "a.cu", "--generate-dependencies-with-compile"], ["nvcc", "-c", "a.cu"]),
        (["nvcc", "-DMF", "-c", "a.cu"], ["nvcc", "-DMF", "-c", "a.cu"]),
    ],
)
def test_dependency_files_are_not_asked_for(argv: list[str], kept: list[str]) -> None:
    assert steps.without_dependencies(argv) == kept


def fake_nvcc(folder: Path, dryrun: str, real: str = "exit 9") -> Path:
    (folder / "listing").write_text(dryrun)
    program = folder / "nvcc"
    program.write_text(f'#!/bin/sh\n[ "$1" = --dryrun ] && {{ cat "{folder}/listing" >&2; exit 0; }}\n{real}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_each_step_runs_and_the_first_failure_ends_it(tmp_path: Path) -> None:
    script = tmp_path / "step"
    script.write_text(f'#!/bin/sh\ncat "$2" > "{tmp_path}/id"\nexit 3\n')
    script.chmod(0o755)
    listing = f"#$ touch {tmp_path}/first\n#$ {script} --module_id_file_name x\n#$ touch {tmp_path}/never\n"
    assert steps.main(["_id_", "--", str(fake_nvcc(tmp_path, listing)), "-c", "a.cu"]) == 3
    assert (tmp_path / "first").exists()
    assert (tmp_path / "id").read_text() == "_id_"
    assert not (tmp_path / "never").exists()


def test_a_killed_step_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "cicc"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    listing = f"#$ {script} --module_id_file_name x\n"
    assert steps.main(["_id_", "--", str(fake_nvcc(tmp_path, listing)), "-c", "a.cu"]) == 137
    assert "'cicc' died due to signal 9" in capfd.readouterr().err


def elf(length: int) -> bytes:
    """The header of a cubin with its tables at the end, as ptxas lays them out, and what lies between, cut to length."""
    sections, programs = 1000, 1000 + 3 * 64
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF", 2, 190, 1, 0, programs, sections, 0, 64, 56, 2, 64, 3, 2)
    return (header + bytes(programs + 2 * 56 - len(header)))[:length]


WHOLE = 1000 + 3 * 64 + 2 * 56


@pytest.mark.parametrize(("length", "code"), [(WHOLE, 0), (WHOLE - 1, 1), (1000, 1), (63, 1), (0, 1)])
def test_half_a_cubin_is_no_success(tmp_path: Path, capfd: pytest.CaptureFixture[str], length: int, code: int) -> None:
    (tmp_path / "half").write_bytes(elf(length))
    ptxas = tmp_path / "ptxas"
    ptxas.write_text(f'#!/bin/sh\ncp "{tmp_path}/half" "$2"\n')
    ptxas.chmod(0o755)
    listing = f"#$ true --module_id_file_name x\n#$ {ptxas} -o {tmp_path}/made.cubin\n"
    assert steps.main(["_id_", "--", str(fake_nvcc(tmp_path, listing)), "-c", "a.cu"]) == code
    assert ("made.cubin is not whole" in capfd.readouterr().err) == bool(code)


@pytest.mark.parametrize(("free", "told"), [(0, True), (100_000, False)])
def test_a_step_that_fails_on_a_full_disk_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free: int, told: bool
) -> None:
    space = SimpleNamespace(f_bfree=free, f_bavail=free, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: space)
    listing = "#$ sh -c 'exit 139' --module_id_file_name x\n"
    assert steps.main(["_id_", "--", str(fake_nvcc(tmp_path, listing)), "-c", "a.cu"]) == 139
    assert ("No space left on device" in capfd.readouterr().err) == told


def test_an_nvcc_that_is_killed_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = fake_nvcc(tmp_path, "nothing that is known", "kill -9 $$")
    assert steps.main(["_id_", "--", str(program), "-c", "a.cu"]) == 137
    assert "'nvcc' died due to signal 9" in capfd.readouterr().err


def test_an_unknown_listing_runs_nvcc_as_it_is(tmp_path: Path) -> None:
    program = fake_nvcc(tmp_path, "a newer nvcc says something else", f'echo "$@" > "{tmp_path}/called"; exit 0')
    assert steps.main(["_id_", "--", str(program), "-MD", "-c", "a.cu"]) == 0
    assert (tmp_path / "called").read_text() == "-c a.cu\n"


def test_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert steps.main(["only"]) == 2
    assert "usage" in capsys.readouterr().err
