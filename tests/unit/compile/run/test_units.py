"""How a unit begins, and the jobs that its steps are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from build_fakes import Costs, call, unit

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.run.places import Places
from attnforge.compile.run.units import Units, clear, prepare
from attnforge.compile.run.work import OPEN, WHOLE, Work
from attnforge.model.graph import InParts, Language
from standins.dryruns import ONE


@pytest.fixture
def units(tmp_path: Path) -> Units:
    return Units(Places.make(tmp_path / "plan", tmp_path / "tmp"), Costs(), Prefixes({}))


@pytest.fixture
def opened(units: Units, tmp_path: Path) -> Work:
    """A unit that nvcc's steps make, after nvcc was asked for them."""
    argv = ("nvcc", "-c", "tiny.cu", "-o", str(tmp_path / "build" / "tiny.o"), "-gencode", "code=sm_90a")
    one = unit(tmp_path, "tiny", Language.CUDA, argv=argv, module_id="an id")
    work = units.begin(one, call(one))
    prepare(work)
    found = units.dissect(work, lambda argv, log: log.write_text(ONE))
    work.steps = {step.label: step for step in found}
    return work


def test_a_units_folder_depends_on_what_it_is_alone(units: Units, tmp_path: Path) -> None:
    one = unit(tmp_path)
    first, again = (units.begin(one, call(one)) for _ in range(2))
    assert first.folder == again.folder
    assert first.number != again.number
    in_parts = replace(one, parts=InParts("/index.h", ("/one.h",)))
    assert units.begin(in_parts, call(in_parts)).folder != first.folder


def test_a_unit_of_nvcc_is_opened_first_and_others_are_made_at_once(units: Units, opened: Work, tmp_path: Path) -> None:
    one = unit(tmp_path)
    assert units.first_task(units.begin(one, call(one))).label == WHOLE
    first = units.first_task(opened)
    assert (first.label, first.tail) == (OPEN, 7.0)


def test_steps_become_jobs_with_the_time_of_what_waits_for_them(units: Units, opened: Work) -> None:
    tasks = {task.label: task for task in units.tasks(opened)}
    assert {label: task.tail for label, task in tasks.items()} == {
        "preprocess": 2.0,
        "cudafe++": 1.0,
        "preprocess sm_90a": 4.0,
        "cicc sm_90a": 3.0,
        "ptxas sm_90a": 2.0,
        "fatbinary": 1.0,
        "compile": 0.0,
    }
    assert tasks["ptxas sm_90a"].needs == {opened.job("cicc sm_90a")}


def test_steps_see_where_nvcc_finds_its_programs(opened: Work) -> None:
    assert opened.environment["PATH"] == "/p/cuda/bin/../nvvm/bin:/p/cuda/bin:/usr/bin"
    assert opened.environment["TMPDIR"] == str(opened.temporary)


def test_a_call_of_an_unknown_form_has_no_steps_and_is_made_at_once(units: Units, opened: Work) -> None:
    assert units.dissect(opened, lambda argv, log: log.write_text("#$ something else\n")) == ()
    opened.unit = replace(opened.unit, argv=("nvcc", "-c", "tiny.cu"))
    assert units.dissect(opened, lambda argv, log: pytest.fail("asked nvcc")) == ()
    opened.steps = {}
    assert [task.label for task in units.tasks(opened)] == [WHOLE]


def test_a_units_folders_are_made_empty_and_removed(opened: Work) -> None:
    (opened.folder / "old").touch()
    prepare(opened)
    assert list(opened.folder.iterdir()) == list(opened.temporary.iterdir()) == []
    clear(opened)
    assert not opened.folder.exists() and not opened.temporary.exists()
