"""The figures of FlashAttention 3's recipe against a whole build that was measured: the file says which."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from attnforge.model.kernels import JOINT, KernelName
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.predictions import predict_steps

UNITS = json.loads((Path(__file__).parent / "fa3-full-sm90a-costs.json").read_text(encoding="utf-8"))["units"]
HOPPER = (Architecture(major=9, minor=0, suffix="a"),)
STEPS = ("preprocess", "preprocess sm_90a", "cudafe++", "cicc sm_90a", "ptxas sm_90a", "fatbinary", "compile")
SECONDS, GB = 0, 1
KINDS = {"forward": 50, "backward": 10}


def kernels(unit: str) -> list[str]:
    """The kernels of a unit; with softcapping, upstream compiles the backward kernels of both in one file."""
    backward = re.fullmatch(r"flash_bwd_hdim(\d+)_(\w+?)_softcapall_sm90\.cu", unit)
    return [f"backward-hdim{backward[1]}-{backward[2]}"] if backward else unit.split(JOINT)


def ratios(label: str, what: int, kind: str = "forward") -> dict[str, float]:
    """Predicted by measured, of each unit."""
    cost = find_recipe("flash-attn-3").cost(kind)
    assert cost is not None
    found = {}
    for unit, steps in UNITS.items():
        if kernels(unit)[0].startswith(kind):
            step = predict_steps(cost, kernels(unit), 1.0, HOPPER)[label]
            found[unit] = (step.seconds, step.peak_bytes / 1e9)[what] / steps[label][what]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", STEPS)
def test_the_median_of_seconds_is_right(label: str, kind: str) -> None:
    found = ratios(label, SECONDS, kind).values()
    assert len(found) == KINDS[kind]
    tolerance = 0.02 if label.startswith(("cicc", "ptxas", "compile")) else 0.12
    assert statistics.median(found) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("label", "tolerance"), [("cicc sm_90a", 0.1), ("compile", 0.22), ("ptxas sm_90a", 0.25)])
def test_no_unit_is_far_off(label: str, tolerance: float, kind: str) -> None:
    found = ratios(label, SECONDS, kind).values()
    assert 1 - tolerance < min(found) <= max(found) < 1 + tolerance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", STEPS)
def test_no_peak_is_more_than_five_percent_above(label: str, kind: str) -> None:
    assert min(ratios(label, GB, kind).values()) > 1 / 1.05


def test_peaks_of_cicc_are_not_far_above_either() -> None:
    found = ratios("cicc sm_90a", GB).values()
    assert statistics.median(found) < 1.06
    assert max(found) < 1.33
    assert max(ratios("cicc sm_90a", GB, "backward").values()) < 1.05


def test_units_of_two_value_dimensions_hold_what_each_needs() -> None:
    groups = [unit for unit in UNITS if JOINT in unit]
    mixed = {unit for unit in groups if len({KernelName.parse(one).dims for one in kernels(unit)}) > 1}
    assert len(mixed) == 2
    peaks = {unit: steps["cicc sm_90a"][GB] for unit, steps in UNITS.items()}
    assert min(peaks[unit] for unit in mixed) > 1.15 * max(peaks[unit] for unit in peaks if unit not in mixed)


@pytest.mark.parametrize(
    ("unit", "seen"),
    [
        (
            " ".join(f"forward-hdim96-bf16{word}" for word in ("", "-packgqa", "-paged", "-paged-softcap", "-split")),
            4.36,
        ),
        ("forward-hdim64-fp16-v256 forward-hdim64-fp16-v256-packgqa", 3.48),
        ("forward-hdim64-fp16-v512 forward-hdim64-fp16-v512-packgqa forward-hdim64-fp16-v512-paged", 4.94),
        ("backward-hdim96-fp16", 2.90),
    ],
)
def test_what_is_held_late_is_reserved(unit: str, seen: float) -> None:
    # costs.json of the same build: what was held at most after the memory of cicc had fallen.
    members = unit.split()
    cost = find_recipe("flash-attn-3").cost(KernelName.parse(members[0]).kind)
    assert cost is not None
    late = predict_steps(cost, members, 1.0, HOPPER)["cicc sm_90a"].late_bytes or 0
    assert seen / 1.25 < late / 1e9 < 1.25 * seen


def test_single_units_are_scaled_like_groups() -> None:
    # On two quiet cores, head dimension 128, bf16: 54 to 78 s of cicc, 5.0 to 6.75 GB; groups of five 187 and 191 s.
    cost = find_recipe("flash-attn-3").cost("forward")
    assert cost is not None
    step = predict_steps(cost, ["forward-hdim128-bf16"], 1.0, HOPPER)["cicc sm_90a"]
    group = [unit for unit in UNITS if unit.startswith("forward-hdim128-bf16")]
    busy = statistics.mean(UNITS[unit]["cicc sm_90a"][SECONDS] for unit in group) / 189
    assert 54 < step.seconds / busy < 78
    assert 1.0 < step.peak_bytes / 6.75e9 < 1.05
