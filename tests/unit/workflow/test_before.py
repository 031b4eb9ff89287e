from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.compile.reuse.objects import Cost, ObjectStore, stored_sources
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan
from attnforge.model.request import Request
from attnforge.paths import Folders
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.estimate import AUDIT_SECONDS, FIXED_SECONDS, estimate
from attnforge.resolve.predictions import Made, expected_units, priors
from attnforge.workflow.before import finished_wheels, made_before

RECIPE = find_recipe("flash-attn")


def keep(folder: Path, key: str, source: str) -> None:
    store = ObjectStore(folder)
    made = folder / "made.o"
    made.write_bytes(b"object")
    store.keep(key, made, ("nvcc", "-O3", "-c", source, "-o", "/b/a.o"), Cost(1.0, 1.0, 1))


@pytest.fixture
def plan(make_plan: Callable[..., BuildPlan]) -> BuildPlan:
    return make_plan(profile="diffusion", head_dims=(64,), groups="none")


def test_the_sources_of_stored_objects_are_known(tmp_path: Path) -> None:
    assert stored_sources(tmp_path / "none") == frozenset()
    keep(tmp_path, "a" * 64, "/s/flash_fwd_hdim64_bf16_sm80.cu")
    (tmp_path / "bad.json").write_text("{")
    assert "flash_fwd_hdim64_bf16_sm80.cu" in stored_sources(tmp_path)


def test_what_is_stored_is_not_expected_to_be_compiled(plan: BuildPlan) -> None:
    found = priors(plan, RECIPE)
    everything = list(expected_units(plan, RECIPE, found))
    assert len(everything) == 5
    some = Made(frozenset({"flash_fwd_hdim64_bf16_sm80.cu", "flash_api.cpp", "other.cu"}))
    assert len(list(expected_units(plan, RECIPE, found, some))) == 3


def test_what_is_left_is_estimated(plan: BuildPlan, make_host: Callable[..., Host]) -> None:
    request, host, found = Request(package="flash-attn"), make_host(), priors(plan, RECIPE)
    some = Made(frozenset({"flash_fwd_hdim64_bf16_sm80.cu"}))
    whole, rest = (estimate(expected_units(plan, RECIPE, found, made), request, host, made) for made in (Made(), some))
    assert FIXED_SECONDS < rest.seconds < whole.seconds
    assert estimate([], request, host, some).seconds == FIXED_SECONDS
    assert estimate([], request, host, Made(wheel=True)).seconds == AUDIT_SECONDS
    assert estimate([], request, host).seconds == 0


def test_merged_units_go_by_the_name_of_their_source(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion", head_dims=(64,), groups="1")
    first = plan.groups[0][0]
    found = priors(plan, RECIPE)
    there = Made(frozenset({f"{first}-and-3-more-0123456789abcdef.cu"}))
    assert len(list(expected_units(plan, RECIPE, found))) == 2
    assert len(list(expected_units(plan, RECIPE, found, there))) == 1
    fewer = Made(frozenset({f"{first}-and-2-more-0123456789abcdef.cu"}))
    assert len(list(expected_units(plan, RECIPE, found, fewer))) == 2


def test_a_finished_wheel_counts_of_the_same_attnforge_alone(tmp_path: Path, plan: BuildPlan) -> None:
    folders = Folders(tmp_path)
    folder = folders.builds / plan.slug
    assert made_before(folders, plan) == Made()
    other = folder / "wheel" / "another" / "x.whl"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    assert not made_before(folders, plan).wheel
    finished_wheels(folder).mkdir(parents=True)
    finished = finished_wheels(folder) / plan.wheel
    finished.write_bytes(b"")
    assert not made_before(folders, plan).wheel  # it was cut off, and is made again
    with zipfile.ZipFile(finished, "w") as archive:
        archive.writestr("a.py", "")
    assert made_before(folders, plan).wheel
