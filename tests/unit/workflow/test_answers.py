"""What the PyTorch of a build answers: which texts compile against its headers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.plan import BuildPlan
from attnforge.recipes.catalogue import find_recipe
from attnforge.workflow.answers import answers_to, other_layout
from standins.jobs import Bench


@pytest.fixture
def bench(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Bench:
    return Bench(tmp_path, make_plan())


@pytest.mark.compile
def test_a_text_that_compiles_is_answered_with_yes(bench: Bench) -> None:
    job, inputs = bench.job(), bench.inputs()
    include = inputs.environment.site_packages / "torch" / "include"
    include.mkdir(parents=True)
    (include / "size.h").write_text("#define SIZE 8\n")
    questions = {
        "eight": "#include <size.h>\nstatic_assert(SIZE == 8);",
        "nine": "#include <size.h>\nstatic_assert(SIZE == 9);",
    }
    assert answers_to(questions, inputs, job.generated, job.machine, 17) == {"eight"}


def test_the_recipe_says_what_kernels_are_given(bench: Bench) -> None:
    error = other_layout(bench.plan, find_recipe("flash-attn"))
    assert "handed to the kernels (the state of its random number generator) in another way" in error.why
    assert "attnforge build flash-attn==2.8.3 --torch" in error.hint
    assert "handed to the kernels in another way" in other_layout(bench.plan, find_recipe("unknown")).why
