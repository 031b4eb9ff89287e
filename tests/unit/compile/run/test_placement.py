"""Objects that need no compiler are found and put where the link expects them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from build_fakes import GB, Programs, call, unit, works

from attnforge.compile.reuse.objects import Cost, ObjectStore
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.work import Batch, Work
from attnforge.errors import BuildError, HostError
from attnforge.model.graph import Language


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.reporter = Reporter(print, io.StringIO())
        self.programs = Programs()
        store = ObjectStore(folder / "objects")
        self.placement = Placement(store, Reuse(), self.programs.executor, folder / "work", self.reporter)

    def keep(self, batch: Batch) -> list[Work]:
        """Make the objects of a call, and keep them."""
        made = works(batch, self.folder)
        for work in made:
            assert self.placement.find(work) is None
            work.folder.mkdir(parents=True, exist_ok=True)
            work.made.write_text(work.unit.name)
            work.spent = Cost(2.0, 1.5, GB)
            self.placement.keep(work)
        return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_object_that_was_kept_is_found_with_what_it_took(place: Place) -> None:
    batch = call(unit(place.folder))
    (work,) = place.keep(batch)
    output = Path(work.unit.output)
    assert output.read_text() == "a.cc"
    output.unlink()
    (again,) = works(batch, place.folder)
    assert place.placement.find(again) == ("reused", Cost(2.0, 1.5, GB))
    assert output.read_text() == "a.cc"


def test_what_is_no_compile_is_not_looked_up(place: Place) -> None:
    batch = call(unit(place.folder))
    place.keep(batch)
    other = replace(batch.graph.units[0], language=Language.OTHER)
    assert not place.placement.take_stored(other, batch)


def test_all_objects_of_a_fallback_count_as_the_units(place: Place) -> None:
    parts = (unit(place.folder, "a"), unit(place.folder, "b"))
    merged = unit(place.folder, "merged", output=parts[0].output, fallback=parts)
    batch = call(merged, *parts, said=place.said)
    place.keep(call(parts[0]))
    assert not place.placement.take_stored(merged, batch)
    place.keep(call(parts[1]))
    assert place.placement.take_stored(merged, batch)
    assert place.said == ["[1/3] a.cc (reused)", "[2/3] b.cc (reused)"]


def test_a_missing_source_says_which_one(place: Place) -> None:
    batch = call(unit(place.folder))
    (place.folder / "a.cc").unlink()
    with pytest.raises(BuildError, match=r"the source .*a\.cc is missing"):
        place.placement.take_stored(batch.graph.units[0], batch)


def test_units_that_are_left_out_and_merged_ones_share_one_empty_object(place: Place) -> None:
    merged = unit(place.folder, "m", empty=True)
    kept = unit(place.folder, "k", members=(merged.output,))
    place.placement.take_empty(call(kept, merged, unit(place.folder, "x", empty=True), said=place.said))
    assert place.said == ["[1/3] m.cc (merged)", "[2/3] x.cc (empty)"]
    assert len(place.programs.runs) == 1
    assert Path(merged.output).read_text() == "object"
    assert not Path(kept.output).exists()


def test_a_host_compiler_that_makes_no_empty_object_is_the_machines_fault(place: Place) -> None:
    place.programs.act, place.programs.printed = lambda run: 1, "no such header"
    with pytest.raises(HostError) as caught:
        place.placement.take_empty(call(unit(place.folder, empty=True)))
    assert caught.value.why == "no such header"


def test_a_rehearsed_call_gets_its_objects_when_it_is_answered(place: Place) -> None:
    batch = call(unit(place.folder, "host"), unit(place.folder, "kernel", Language.CUDA))
    batch.rehearsed = True
    place.keep(replace(batch, graph=call(batch.graph.units[0]).graph, objects=batch.objects))
    host, kernel = (Path(one.output) for one in batch.graph.units)
    assert not host.exists()
    place.placement.answer(batch)
    assert (host.read_text(), kernel.read_text()) == ("host.cc", "object")
