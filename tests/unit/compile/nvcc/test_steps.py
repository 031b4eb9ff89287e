from __future__ import annotations

import itertools
import shlex
import struct
from pathlib import Path

import pytest

from attnforge.compile.nvcc.dryrun import UnknownStepsError, dryrun_argv, parse
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.steps import Step, Tool, dissect, folders, is_whole
from standins.dryruns import ONE, THREE, TWO_CUBINS, WITH_PTX

PREFIXES = Prefixes({"/p/src": "source"})


def steps(text: str = THREE, output: str = "/o/tiny.o") -> dict[str, Step]:
    return {step.label: step for step in dissect(text, "/w", "/w/id", output, PREFIXES)[1]}


def after(step: Step, option: str) -> str:
    return step.argv[step.argv.index(option) + 1]


# --- the call


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        ("nvcc -c a.cu -o a.o", "nvcc --dryrun -c a.cu -o a.o"),
        ("nvcc -MD -MF a.d -c a.cu", "nvcc --dryrun -c a.cu"),
        ("nvcc -MMD --dependency-output a.d -c a.cu", "nvcc --dryrun -c a.cu"),
        ("nvcc --dependency-output=a.d -c a.cu --generate-dependencies-with-compile", "nvcc --dryrun -c a.cu"),
        ("nvcc --threads 4 -c a.cu", "nvcc --dryrun -c a.cu"),
        ("nvcc --threads=4 -t 2 -t=8 -t4 -c a.cu", "nvcc --dryrun -c a.cu"),
        ("nvcc -DMF -tused -c a.cu --split-compile=2", "nvcc --dryrun -DMF -tused -c a.cu --split-compile=2"),
    ],
)
def test_options_that_change_nothing_are_left_out_of_the_dry_run(call: str, asked: str) -> None:
    assert shlex.join(dryrun_argv(call.split())) == asked


def test_settings_and_commands_are_read() -> None:
    found = parse(
        '#$ A=1\n#$ CICC_PATH=/p/a b\n#$ "$CICC_PATH/cicc" "a b.ii" \n#$ -- Filter Dependencies -- > x\nnoise\n'
    )
    assert found.environment == {"A": "1", "CICC_PATH": "/p/a b"}
    assert found.commands == (("/p/a b/cicc", "a b.ii"),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing here",
        "#$ A=b",
        "#$ gcc a && rm b",
        "#$ gcc a > out",
        "#$ gcc a 2>err",
        "#$ gcc $UNKNOWN",
        "#$ gcc `date`",
        '#$ gcc "a',
        "#$  ",
    ],
)
def test_lines_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(UnknownStepsError):
        parse(text)


# --- the steps


def test_the_steps_of_one_architecture() -> None:
    assert {label: step.needs for label, step in steps(ONE).items()} == {
        "preprocess": (),
        "cudafe++": ("preprocess",),
        "preprocess sm_90a": (),
        "cicc sm_90a": ("preprocess sm_90a",),
        "ptxas sm_90a": ("cicc sm_90a",),
        "fatbinary": ("ptxas sm_90a",),
        "compile": ("cudafe++", "cicc sm_90a", "fatbinary"),
    }


def test_the_steps_of_three_architectures() -> None:
    found = steps(THREE)
    assert {label: step.needs for label, step in found.items() if step.needs} == {
        "cudafe++": ("preprocess",),
        "cicc sm_80": ("preprocess sm_80",),
        "ptxas sm_80": ("cicc sm_80",),
        "cicc sm_90a": ("preprocess sm_90a",),
        "ptxas sm_90a": ("cicc sm_90a",),
        "cicc sm_90": ("preprocess sm_90",),
        "ptxas compute_90": ("cicc sm_90",),
        "fatbinary": ("ptxas sm_80", "ptxas sm_90a", "cicc sm_90"),
        # Only the stub of the last architecture is included.
        "compile": ("cudafe++", "cicc sm_90", "fatbinary"),
    }
    assert found["ptxas compute_90"].writes == ()


def test_ptx_and_cubin_of_one_architecture() -> None:
    found = steps(WITH_PTX)
    assert found["fatbinary"].needs == ("ptxas sm_90", "cicc sm_90")
    assert found["fatbinary"].reads == ("/w/tiny.sm_90.cubin", "/w/tiny.ptx")


def test_two_cubins_of_one_ptx() -> None:
    found = steps(TWO_CUBINS)
    assert found["ptxas sm_80"].needs == found["ptxas sm_86"].needs == ("cicc sm_90a",)
    assert found["fatbinary"].needs == ("ptxas sm_86", "ptxas sm_80")


@pytest.mark.parametrize("text", [ONE, THREE, WITH_PTX, TWO_CUBINS])
def test_the_order_is_one_in_which_they_can_run(text: str) -> None:
    done: set[str] = set()
    for step in steps(text).values():
        assert done.issuperset(step.needs)
        done.add(step.label)


@pytest.mark.parametrize("text", [ONE, THREE, WITH_PTX, TWO_CUBINS])
def test_each_file_has_one_writer_and_steps_need_those_of_what_they_read(text: str) -> None:
    found = steps(text)
    written = [path for step in found.values() for path in step.writes]
    assert len(written) == len(set(written))
    for step in found.values():
        writers = {other.label for other in found.values() if set(other.writes) & set(step.reads)}
        assert writers == set(step.needs)


def test_every_step_but_the_host_compilers_is_told_names_alone() -> None:
    for text in (ONE, THREE):
        for step in steps(text).values():
            host = step.tool in (Tool.PREPROCESS, Tool.COMPILE)
            assert bool(step.cwd) != host
            told = [word for word in step.argv[1:] if "/w" in word and word != "/w/id"]
            assert bool(told) == host, step


def test_what_an_architecture_is_told_does_not_depend_on_the_others() -> None:
    alone, among = steps(ONE), steps(THREE)
    assert alone["ptxas sm_90a"].argv == among["ptxas sm_90a"].argv
    assert among["cicc sm_90a"].cwd == "/w/compute_90a"
    assert [word for word in among["cicc sm_90a"].argv if word != "/w/id"] == [
        word for word in alone["cicc sm_90a"].argv if word != "id"
    ]
    assert alone["cudafe++"].argv == among["cudafe++"].argv


def test_names_do_not_depend_on_the_process() -> None:
    assert steps(THREE) == steps(THREE.replace("00007d07", "0000ffff"))
    assert "tmpxft" not in repr(steps(THREE))


def test_the_module_id_is_read_by_all_and_made_by_none() -> None:
    found = steps(THREE)
    named = [found[label] for label in ("cudafe++", "cicc sm_80", "cicc sm_90")]
    assert [after(step, "--module_id_file_name") for step in named] == ["id", "/w/id", "id"]
    assert "--gen_module_id_file" not in repr(found)
    assert all("/w/id" not in step.reads for step in found.values())


def test_the_host_compile_reads_what_it_includes_and_writes_the_object() -> None:
    found = steps(THREE)["compile"]
    assert set(found.reads) == {"/w/tiny.cudafe1.cpp", "/w/tiny.cudafe1.stub.c", "/w/tiny.fatbin.c"}
    assert found.writes == ("/o/tiny.o",)
    assert after(found, "-o") == "/o/tiny.o"


def test_compilers_write_which_headers_they_read() -> None:
    for step in steps(THREE).values():
        if step.tool in (Tool.PREPROCESS, Tool.COMPILE):
            assert after(step, "-MF") == step.depfile
            assert "-MD" in step.argv
        else:
            assert not step.depfile


def test_the_source_has_its_stable_name() -> None:
    found = steps(THREE)
    assert after(found["cicc sm_80"], "--orig_src_path_name") == "source/tiny.cu"
    assert after(found["cudafe++"], "--orig_src_file_name") == "source/tiny.cu"
    assert "/p/src/tiny.cu" in found["preprocess"].argv


def test_the_name_inside_a_fatbin_is_the_stable_one() -> None:
    found = steps(ONE.replace("fatbinary -64", 'fatbinary -64 --ident="/p/src/tiny.cu"'))
    assert "--ident=source/tiny.cu" in found["fatbinary"].argv


def test_the_folders_to_make_are_named() -> None:
    assert folders(steps(THREE).values()) == ("/o", "/w", "/w/compute_80", "/w/compute_90a")


def test_the_environment_is_nvccs() -> None:
    environment = dissect(ONE, "/w", "/w/id", "/o/a.o")[0]
    assert environment["PATH"].startswith("/p/cuda/bin/../nvvm/bin:")
    assert environment["LD_LIBRARY_PATH"] == "/p/cuda/bin/../lib:"


@pytest.mark.parametrize("name", ["a b", "a.v2", "a=b,c", "compute_90", "x+y"])
@pytest.mark.parametrize("folder", ["/t", "/t mp/a=b,c"])
def test_odd_names_of_sources_and_of_temporary_folders(name: str, folder: str) -> None:
    text = THREE.replace("_tiny.", f"_{name}.").replace("tiny.cu", f"{name}.cu").replace('"/t/', f'"{folder}/')
    text = text.replace("file=/t/", f"file={folder}/").replace("#$ rm /t/", f"#$ rm '{folder}'/")
    found = steps("\n".join(line for line in text.splitlines() if not line.startswith("#$ rm")))
    assert found["compile"].needs == ("cudafe++", "cicc sm_90", "fatbinary")
    assert f"/w/compute_80/{name}.cubin" in found["fatbinary"].reads
    assert f"--image3=kind=elf,sm=80,file=compute_80/{name}.cubin" in found["fatbinary"].argv


def test_a_cicc_that_is_found_by_path_as_in_cuda_12() -> None:
    found = steps(ONE.replace('"$CICC_PATH/cicc"', "cicc"))
    assert found["cicc sm_90a"].argv[0] == "cicc"


def test_a_tool_that_is_not_known_runs_alone() -> None:
    odd = "#$ nvlink -arch=sm_90a -o /t/tmpxft_00007d04_00000000-9_tiny.linked\n#$ fatbinary"
    found = steps(ONE.replace("#$ fatbinary", odd))
    assert found["nvlink"].tool is Tool.OTHER
    assert found["nvlink"].needs == ("preprocess", "cudafe++", "preprocess sm_90a", "cicc sm_90a", "ptxas sm_90a")
    assert found["fatbinary"].needs[0] == found["compile"].needs[0] == "nvlink"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("--module_id_file_name", "--other", id="no module id"),
        pytest.param("tmpxft_00007d04_00000000-6_tiny.cudafe1.stub.c", "tiny.cudafe1.stub.c", id="files are kept"),
        pytest.param("--orig_src_file_name", "--other", id="no source"),
        pytest.param("#$ cudafe++", "#$ frontend -c", id="no cudafe++"),
        pytest.param("-8_tiny.cubin", "-8_other.cubin", id="another stem"),
        pytest.param('-o "x.o"', "", id="no object"),
        pytest.param(" -c -x c++", " -E -x c++", id="no host compile"),
        pytest.param('-o "/t/tmpxft_00007d04_00000000-8_tiny.cubin"', "", id="a cubin that nobody writes"),
        pytest.param("-7_tiny.cpp1.ii", "-7_tiny.cpp4.ii", id="two names become one"),
        pytest.param('-o "/t/tmpxft_00007d04_00000000-5_tiny.cpp4.ii"', "", id="a preprocessor without an output"),
        pytest.param("-ftz=0 --include", "-odd=/t/tmpxft_00007d04_00000000-6_tiny.x --include", id="an odd option"),
        pytest.param("-6_tiny.ptx", "-6_tiny.cudafe1.cpp", id="two that write one file"),
    ],
)
def test_calls_of_another_form_are_refused(old: str, new: str) -> None:
    assert old in ONE
    with pytest.raises(UnknownStepsError):
        steps(ONE.replace(old, new))


def test_labels_are_unique() -> None:
    lines = ONE.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("#$ ptxas"))
    again = lines[at].replace("-8_tiny.cubin", "-9_tiny.debug.cubin")
    found = dissect("\n".join([*lines[: at + 1], again, *lines[at + 1 :]]), "/w", "/w/id", "/o/a.o")[1]
    labels = [step.label for step in found]
    assert len(labels) == len(set(labels))
    assert "ptxas sm_90a #2" in labels


# --- what steps write


def elf(length: int) -> bytes:
    """The header of a cubin with its tables at the end, as ptxas lays them out, cut to a length."""
    sections, programs = 1000, 1000 + 3 * 64
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF", 2, 190, 1, 0, programs, sections, 0, 64, 56, 2, 64, 3, 2)
    return (header + bytes(programs + 2 * 56 - len(header)))[:length]


WHOLE = 1000 + 3 * 64 + 2 * 56


@pytest.mark.parametrize(
    ("length", "whole"), [(WHOLE, True), (WHOLE - 1, False), (1000, False), (63, False), (0, False)]
)
def test_half_a_cubin_is_told(tmp_path: Path, length: int, whole: bool) -> None:
    (tmp_path / "a.cubin").write_bytes(elf(length))
    assert is_whole(tmp_path / "a.cubin") == whole


def test_listings_here_are_different() -> None:
    assert all(a != b for a, b in itertools.combinations((ONE, THREE, WITH_PTX, TWO_CUBINS), 2))
