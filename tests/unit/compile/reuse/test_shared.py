"""A build shares what is proven of its own files and PTX, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.ptx import parts, read_ptx
from attnforge.compile.nvcc.steps import Step, Tool
from attnforge.compile.reuse.making import Making
from attnforge.compile.reuse.shared import Sharing, UnprovenError, files_read, ordered
from attnforge.model.graph import Language, Unit
from attnforge.model.sharing import Proof
from standins.ptx_texts import ptx

ID = "_0a_4_x_cu_0b_0"
FUNCTIONS = [("first", 3), ("second", 4)]


def cicc(folder: Path, code: str) -> Step:
    path = str(folder / f"{code}.ptx")
    return Step(f"cicc {code}", Tool.CICC, ("cicc", "-o", path), writes=(path,), cwd=str(folder))


@pytest.fixture
def work(tmp_path: Path) -> Making:
    """A unit whose cicc for sm_80 has ended; it was made of one file of upstream and one of the system."""
    (tmp_path / "source").mkdir()
    for name, text in (("x.cu", "a"), ("x.h", "b")):
        (tmp_path / "source" / name).write_text(text)
    (tmp_path / "temporary").mkdir()
    depfile = tmp_path / "temporary" / "x.d"
    depfile.write_text(f"x.o: {tmp_path}/source/x.cu {tmp_path}/source/x.h /usr/include/stdlib.h\n")
    preprocess = Step("preprocess sm_80", Tool.PREPROCESS, ("gcc",), depfile=str(depfile))
    steps = (preprocess, cicc(tmp_path, "sm_80"), cicc(tmp_path, "sm_90"))
    unit = Unit("/b/x.o", ("/s/x.cu",), ("nvcc",), "/b", Language.CUDA, module_id=ID, shares=(("sm_90", "sm_80"),))
    (tmp_path / "sm_80.ptx").write_bytes(ptx("80", FUNCTIONS, ID))
    folders = (tmp_path, tmp_path / "temporary")
    return Making(unit, (), {}, *folders, steps={step.label: step for step in steps})


@pytest.fixture
def prefixes(tmp_path: Path) -> Prefixes:
    return Prefixes({str(tmp_path / "source"): "source"})


def proof(work: Making, prefixes: Prefixes) -> Proof:
    """All that the unit is made of."""
    return Proof(
        package="x",
        nvcc="13.0.88",
        of="80",
        code="90",
        commands=("by hand",),
        units=(),
        files=tuple(sorted(digest for digest, _ in files_read(work, prefixes))),
        parts=tuple(sorted(parts(read_ptx(ptx("90", FUNCTIONS, ID)), ID))),
    )


def test_what_is_proven_is_shared(work: Making, prefixes: Prefixes) -> None:
    made = Sharing([proof(work, prefixes)]).ptx(work, work.steps["cicc sm_90"], prefixes)
    assert made == ptx("90", FUNCTIONS, ID)


def test_files_of_upstream_count_and_those_of_the_system_do_not(work: Making, prefixes: Prefixes) -> None:
    digest = hashlib.sha256(b"a").hexdigest()[:32]
    assert files_read(work, prefixes)[0] == (digest, "source/x.cu")
    assert [name for _, name in files_read(work, prefixes)] == ["source/x.cu", "source/x.h"]


def test_a_function_that_is_left_out_needs_no_proof(work: Making, prefixes: Prefixes, tmp_path: Path) -> None:
    proven = proof(work, prefixes)
    (tmp_path / "sm_80.ptx").write_bytes(ptx("80", [("other", 9), *FUNCTIONS], ID))
    work.unit = replace(work.unit, left_out=(("sm_90", "^oth"), ("sm_100", "first")))
    assert Sharing([proven]).ptx(work, work.steps["cicc sm_90"], prefixes) == ptx("90", FUNCTIONS, ID)


def test_an_unproven_function_is_not_shared(work: Making, prefixes: Prefixes, tmp_path: Path) -> None:
    proven = proof(work, prefixes)
    (tmp_path / "sm_80.ptx").write_bytes(ptx("80", [*FUNCTIONS, ("third", 9)], ID))
    with pytest.raises(UnprovenError, match="1 parts of the PTX are not in the proof, one is third"):
        Sharing([proven]).ptx(work, work.steps["cicc sm_90"], prefixes)


def test_another_header_is_not_proven(work: Making, prefixes: Prefixes, tmp_path: Path) -> None:
    proven = proof(work, prefixes)
    (tmp_path / "source" / "x.h").write_text("another content")
    with pytest.raises(UnprovenError, match=r"source/x\.h"):
        Sharing([proven]).ptx(work, work.steps["cicc sm_90"], prefixes)


def test_a_stub_that_is_read_is_not_made_up(work: Making, prefixes: Prefixes, tmp_path: Path) -> None:
    stub = str(tmp_path / "stub.c")
    step = work.steps["cicc sm_90"]
    work.steps["cicc sm_90"] = replace(step, writes=(*step.writes, stub))
    work.steps["compile"] = Step("compile", Tool.COMPILE, ("g++",), reads=(stub,))
    with pytest.raises(UnprovenError, match="more than its PTX"):
        Sharing([proof(work, prefixes)]).ptx(work, work.steps["cicc sm_90"], prefixes)


def test_without_a_proof_for_the_architectures_nothing_is_shared(work: Making, prefixes: Prefixes) -> None:
    with pytest.raises(UnprovenError, match="no proof"):
        Sharing().ptx(work, work.steps["cicc sm_90"], prefixes)


def test_a_step_that_may_be_spared_waits_for_the_one_that_it_follows_from(work: Making) -> None:
    needs = {step.label: step.needs for step in ordered(tuple(work.steps.values()), work.unit)}
    assert needs == {"preprocess sm_80": (), "cicc sm_80": (), "cicc sm_90": ("cicc sm_80",)}
    alone = [step for step in work.steps.values() if step.label != "cicc sm_80"]
    assert all(not step.needs for step in ordered(alone, work.unit))
