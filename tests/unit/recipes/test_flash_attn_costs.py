"""The figures of FlashAttention 2's recipe against three whole builds that were measured: the files say which."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.measured import PEAK_MARGIN
from attnforge.model.cost import Prediction, step_key
from attnforge.model.graph import Language, Unit
from attnforge.model.kernels import JOINT, KernelName
from attnforge.model.plan import BuildPlan
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.predictions import cost_key, predict_steps

RECIPE = find_recipe("flash-attn")
HOPPER = (Architecture(major=9, minor=0),)
KINDS = ("forward", "split", "backward")
STEPS = ("cicc sm_90", "ptxas sm_90", "cudafe++", "compile", "preprocess", "fatbinary")
SECONDS, GB = 0, 1

Units = dict[str, dict[str, list[float]]]


def read(name: str) -> Any:
    return json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


def kernels(unit: str) -> list[str]:
    """Of a unit's name in the first file, where merged units have one entry for both dtypes, or in the second."""
    merged = unit.removesuffix("x2")
    return unit.split(JOINT) if merged == unit else [f"{merged}-bf16", f"{merged}-bf16-causal"]


def predicted(unit: str) -> dict[str, Prediction]:
    cost = RECIPE.cost(KernelName.parse(kernels(unit)[0]).kind)
    assert cost is not None
    return predict_steps(cost, kernels(unit), 1.0, HOPPER)


RUN = read("fa2-full-sm90-run.json")
BUILDS: dict[str, Units] = {"first": read("fa2-full-sm90-costs.json")["units"], "second": RUN["units"]}


def ratios(units: Units, kind: str, label: str, what: int) -> list[float]:
    """Predicted by measured: of SECONDS or of GB."""
    found = []
    for unit, steps in units.items():
        if KernelName.parse(kernels(unit)[0]).kind == kind and label in steps:
            step = predicted(unit)[label]
            found.append((step.seconds, step.peak_bytes / 1e9)[what] / steps[label][what])
    return found


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", STEPS)
def test_the_median_of_seconds_is_right(build: str, kind: str, label: str) -> None:
    # The builds differ by up to a tenth, and in small steps by more.
    tolerance = 0.07 if label in ("cicc sm_90", "ptxas sm_90") else 0.22
    assert statistics.median(ratios(BUILDS[build], kind, label, SECONDS)) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_unit_is_far_off(build: str, kind: str) -> None:
    found = ratios(BUILDS[build], kind, "cicc sm_90", SECONDS)
    assert len(found) >= 11
    assert 0.82 < min(found) <= max(found) < 1.25


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("kind", KINDS)
def test_peaks_are_known_to_three_percent(build: str, kind: str) -> None:
    found = ratios(BUILDS[build], kind, "cicc sm_90", GB)
    assert 0.98 < min(found) <= max(found) < 1.03


# --- a build for two architectures

BOTH = (Architecture(major=8, minor=0), *HOPPER)
TWO: Units = read("fa2-full-sm80-sm90-run.json")["units"]
# What is there for sm_90 has two kernels of three that are no longer compiled for it.
OUTDATED = "backward-hdim256"


def of_both(kind: str, label: str, what: int) -> list[float]:
    """Predicted by measured, in the build for both architectures: of SECONDS or of GB."""
    cost = RECIPE.cost(kind)
    assert cost is not None
    found = []
    for unit, steps in TWO.items():
        if unit.startswith(kind) and not (label == "cicc sm_90" and unit.startswith(OUTDATED)):
            step = predict_steps(cost, unit.split(JOINT), 1.0, BOTH)[label]
            found.append((step.seconds, step.peak_bytes / 1e9)[what] / steps[label][what])
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", BOTH, ids=str)
def test_each_architecture_is_known_by_the_kernels_that_it_has(kind: str, code: Architecture) -> None:
    found = of_both(kind, f"cicc {code.sm}", SECONDS)
    assert len(found) >= 12
    # Hosts differ: this one took a tenth more for backward and less for the others than the earlier ones.
    assert statistics.median(found) == pytest.approx(1.0, abs=0.15)
    assert 0.75 < min(found) <= max(found) < 1.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", BOTH, ids=str)
def test_peaks_of_each_architecture_are_known(kind: str, code: Architecture) -> None:
    found = of_both(kind, f"cicc {code.sm}", GB)
    assert 0.97 < min(found) <= max(found) < 1.05


# --- what a build predicts while it learns


@pytest.fixture
def named(make_plan: Callable[..., BuildPlan]) -> dict[str, Unit]:
    """The units of the second build by their names in its file, with the keys under which they are measured."""
    plan = make_plan()
    one = partial(Unit, "/b/a.o", ("/s/a.cu",), ("nvcc",), "/b", Language.CUDA)
    return {name: one(cost_key=cost_key(plan, name)) for name in RUN["units"]}


@pytest.fixture
def begin(named: dict[str, Unit], tmp_path: Path) -> Callable[[], CostModel]:
    """Begin a build that has the recipe's figures and what earlier ones learned."""
    prior = {
        step_key(unit.cost_key, label): step for name, unit in named.items() for label, step in predicted(name).items()
    }
    return lambda: CostModel(tmp_path / "costs.json", prior)


def peaks(costs: CostModel, named: dict[str, Unit], *, learns: bool) -> list[float]:
    """Let the second build happen: return the peak that is predicted of each step when it starts, by what it was."""
    units, found = list(RUN["units"]), []
    for event in RUN["order"]:
        number, _, label = event[1:].partition(" ")
        name = units[int(number)]
        took, unit = RUN["units"][name][label], named[name]
        if event[0] == "+":
            found.append(costs.predict(unit, label).peak_bytes / 1e9 / took[GB])
        elif learns:
            late, early = took[2:] or (took[GB], 1.0)
            costs.learn(unit, label, took[SECONDS], int(took[GB] * 1e9), int(late * 1e9), early)
    return found


def test_few_peaks_of_a_build_exceed_what_was_predicted(begin: Callable[[], CostModel], named: dict[str, Unit]) -> None:
    first = peaks(begin(), named, learns=True)
    assert len(first) == 420
    assert sum(ratio < 1 for ratio in first) <= 0.01 * len(first)
    assert min(first) > 1 / 1.05
    # The next one takes the same; what was measured has a margin.
    assert min(peaks(begin(), named, learns=False)) >= 1


def test_peaks_of_one_build_foretell_those_of_another() -> None:
    # Built with other groups on another host: what is there in both.
    first, second = BUILDS["first"], BUILDS["second"]
    both = [unit for unit in second if "cicc sm_90" in first.get(unit, {})]
    assert len(both) > 40
    ratio = [PEAK_MARGIN * first[unit]["cicc sm_90"][GB] / second[unit]["cicc sm_90"][GB] for unit in both]
    assert sum(one < 1 for one in ratio) <= 0.01 * len(ratio)
    assert max(ratio) < 1.05


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
    cost = RECIPE.cost(KernelName.parse(kernel).kind)
    assert cost is not None
    step = predict_steps(cost, [kernel], 1.0, HOPPER)["cicc sm_90"]
    assert step.late_bytes is not None
    assert 1.0 <= step.late_bytes / (late * 1e9) < 1.15
    assert 0.1 < step.early < 0.4
