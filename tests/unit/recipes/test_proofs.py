"""The proofs that attnforge has are whole, and found by what a plan pins."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from attnforge.model.sharing import Proof
from attnforge.recipes.catalogue import recipes
from attnforge.recipes.proofs import file_name, find_proofs

ROOT = Path(str(resources.files("attnforge.recipes")))
FILES = sorted(ROOT.glob("*/shared/*.json"))


def test_there_are_proofs() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_a_proof_is_found_by_its_compiler_and_says_what_made_it(path: Path) -> None:
    proof = Proof.model_validate_json(path.read_text(encoding="utf-8"))
    assert path.name == file_name(proof)
    assert path.parent.parent.name == proof.package.replace("-", "_")
    assert proof in find_proofs(proof.package, proof.nvcc)
    assert proof.units
    assert proof.files
    assert len(proof.parts) > max(unit.functions for unit in proof.units)
    assert all(command.startswith("python experiments/shared.py ") for command in proof.commands)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_proven_units_are_units_of_the_recipe(path: Path) -> None:
    proof = Proof.model_validate_json(path.read_text(encoding="utf-8"))
    recipe = recipes()[proof.package]
    for unit in proof.units:
        for version in unit.versions:
            release = recipe.release(version)
            assert release is not None
            assert set(unit.features) <= set(recipe.features)
            if recipe.kernels:
                assert set(unit.units) <= set(recipe.kernels.names(release.head_dims))


@pytest.mark.parametrize(
    ("package", "nvcc"), [("flash-attn", "99.9.1"), ("flash-attn", "13.0.8"), ("no-such", "13.0.88")]
)
def test_nothing_is_proven_of_others(package: str, nvcc: str) -> None:
    assert find_proofs(package, nvcc) == ()
