"""Requests to the program beside a wheel are values of model/ as JSON: their types have fields of these values."""

from __future__ import annotations

from attnforge.model.benchmark import Accuracy, Cell, Shape
from attnforge.model.check import Case, GpuSeen
from attnforge.ongpu import protocol


def test_a_case_has_every_field_that_its_run_reads() -> None:
    assert set(protocol.CaseToRun.__annotations__) <= set(Case.model_fields)


def test_a_cell_has_every_field_that_its_timing_reads() -> None:
    assert set(protocol.CellToTime.__annotations__) <= set(Cell.model_fields)
    assert set(protocol.ShapeToTime.__annotations__) <= set(Shape.model_fields)


def test_what_comes_back_is_a_value_of_a_report_as_it_is() -> None:
    assert set(protocol.AccuracyFound.__annotations__) == set(Accuracy.model_fields)
    assert set(protocol.GpuFound.__annotations__) == set(GpuSeen.model_fields)
