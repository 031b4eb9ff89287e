"""The figures of FlashAttention 3's recipe against the part of a whole build that was measured: the file says which."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from attnforge.model.recipe import JOINT, KernelName
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.estimate import predict_steps

UNITS = json.loads((Path(__file__).parent / "fa3-part-sm90a-costs.json").read_text(encoding="utf-8"))["units"]
HOPPER = (Architecture(major=9, minor=0, suffix="a"),)
STEPS = ("preprocess", "preprocess sm_90a", "cudafe++", "cicc sm_90a", "ptxas sm_90a", "fatbinary", "compile")
SECONDS, GB = 0, 1


def ratios(label: str, what: int) -> dict[str, float]:
    """Predicted by measured, of each unit."""
    cost = find_recipe("flash-attn-3").cost("forward")
    assert cost is not None
    found = {}
    for unit, steps in UNITS.items():
        step = predict_steps(cost, unit.split(JOINT), 1.0, HOPPER)[label]
        found[unit] = (step.seconds, step.peak_bytes / 1e9)[what] / steps[label][what]
    return found


@pytest.mark.parametrize("label", STEPS)
def test_the_median_of_seconds_is_right(label: str) -> None:
    found = ratios(label, SECONDS).values()
    assert len(found) == 23
    tolerance = 0.03 if label.startswith("cicc") else 0.1
    assert statistics.median(found) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize(("label", "tolerance"), [("cicc sm_90a", 0.1), ("compile", 0.15), ("ptxas sm_90a", 0.3)])
def test_no_unit_is_far_off(label: str, tolerance: float) -> None:
    found = ratios(label, SECONDS).values()
    assert 1 - tolerance < min(found) <= max(found) < 1 + tolerance


@pytest.mark.parametrize("label", STEPS)
def test_no_peak_is_more_than_five_percent_above(label: str) -> None:
    assert min(ratios(label, GB).values()) > 1 / 1.05


def test_peaks_of_cicc_are_not_far_above_either() -> None:
    found = ratios("cicc sm_90a", GB).values()
    assert statistics.median(found) < 1.06
    assert max(found) < 1.15


def test_units_of_two_value_dimensions_hold_what_each_needs() -> None:
    mixed = {unit for unit in UNITS if len({KernelName.parse(one).dims for one in unit.split(JOINT)}) > 1}
    assert len(mixed) == 3
    peaks = {unit: steps["cicc sm_90a"][GB] for unit, steps in UNITS.items()}
    assert min(peaks[unit] for unit in mixed) > 1.2 * max(peaks[unit] for unit in peaks if unit not in mixed)


def test_what_is_held_late_was_seen() -> None:
    # 27 groups of five held 104 GB together at most, after 220 GB at their peak.
    cost = find_recipe("flash-attn-3").cost("forward")
    assert cost is not None
    late = [predict_steps(cost, unit.split(JOINT), 1.0, HOPPER)["cicc sm_90a"].late_bytes or 0 for unit in UNITS]
    assert 104 / 27 < min(late) / 1e9 < 1.35 * 104 / 27


def test_single_units_are_scaled_like_groups() -> None:
    # On two quiet cores, head dimension 128, bf16: 54 to 78 s of cicc, 5.0 to 6.75 GB; groups of five 187 and 191 s.
    cost = find_recipe("flash-attn-3").cost("forward")
    assert cost is not None
    step = predict_steps(cost, ["forward-hdim128-bf16"], 1.0, HOPPER)["cicc sm_90a"]
    group = [unit for unit in UNITS if unit.startswith("forward-hdim128-bf16")]
    busy = statistics.mean(UNITS[unit]["cicc sm_90a"][SECONDS] for unit in group) / 189
    assert 54 < step.seconds / busy < 78
    assert 1.0 < step.peak_bytes / 6.75e9 < 1.05
