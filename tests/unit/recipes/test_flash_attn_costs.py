"""The figures of FlashAttention 2's recipe against a whole build that was measured: what it is, the file says."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from attnforge.model.recipe import KernelName
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.estimate import predict_steps

UNITS = json.loads((Path(__file__).parent / "fa2-full-sm90-costs.json").read_text(encoding="utf-8"))["units"]
HOPPER = (Architecture(major=9, minor=0),)
KINDS = ("forward", "split", "backward")


def ratios(kind: str, label: str, what: int) -> list[float]:
    """Predicted by measured: of seconds (0) or of GB (1)."""
    found = []
    for unit, steps in UNITS.items():
        merged = unit.removesuffix("x2")
        kernels = [unit] if merged == unit else [f"{merged}-bf16", f"{merged}-bf16-causal"]
        cost = find_recipe("flash-attn").cost(kind)
        assert cost is not None
        if KernelName.parse(kernels[0]).kind == kind and label in steps:
            step = predict_steps(cost, kernels, 1.0, HOPPER)[label]
            found.append((step.seconds, step.peak_bytes / 1e9)[what] / steps[label][what])
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", ["cicc sm_90", "ptxas sm_90", "cudafe++", "compile", "preprocess", "fatbinary"])
def test_the_median_of_seconds_is_right(kind: str, label: str) -> None:
    tolerance = 0.05 if label in ("cicc sm_90", "ptxas sm_90") else 0.2
    assert statistics.median(ratios(kind, label, 0)) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_no_unit_is_far_off(kind: str) -> None:
    found = ratios(kind, "cicc sm_90", 0)
    assert len(found) >= 11
    assert 0.85 < min(found) <= max(found) < 1.25


@pytest.mark.parametrize("kind", KINDS)
def test_peaks_are_known_to_two_percent(kind: str) -> None:
    found = ratios(kind, "cicc sm_90", 1)
    assert 0.98 < min(found) <= max(found) < 1.02


@pytest.mark.parametrize(
    ("kernel", "late"),
    # Sampled on a 2-core machine: units of head dimension 64, bf16, all features.
    [
        ("split-hdim64-bf16", 1.98),
        ("split-hdim64-bf16-causal", 1.22),
        ("backward-hdim64-bf16", 1.47),
        ("backward-hdim64-bf16-causal", 1.15),
        ("forward-hdim64-bf16", 1.29),
        ("forward-hdim64-bf16-causal", 1.14),
    ],
)
def test_what_is_held_late_is_known(kernel: str, late: float) -> None:
    cost = find_recipe("flash-attn").cost(KernelName.parse(kernel).kind)
    assert cost is not None
    step = predict_steps(cost, [kernel], 1.0, HOPPER)["cicc sm_90"]
    assert step.late_bytes is not None
    assert 1.0 <= step.late_bytes / (late * 1e9) < 1.15
    assert 0.1 < step.early < 0.4
