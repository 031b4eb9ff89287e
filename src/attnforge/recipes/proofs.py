"""Finds the proofs that architectures of a package can share PTX. ``experiments/shared.py`` makes them."""

from __future__ import annotations

from functools import cache
from importlib import resources

from attnforge.model.sharing import Proof

FOLDER = "shared"


@cache
def find_proofs(package: str, nvcc: str) -> tuple[Proof, ...]:
    """Return the proofs for a package and a build of nvcc (``13.0.88``), by their architectures in order."""
    folder = resources.files("attnforge.recipes").joinpath(package.replace("-", "_"), FOLDER)
    names = [entry for entry in folder.iterdir() if entry.name.endswith(".json")] if folder.is_dir() else []
    mine = [entry for entry in names if entry.name.startswith(f"nvcc-{nvcc}-")]
    found = [Proof.model_validate_json(entry.read_text(encoding="utf-8")) for entry in mine]
    return tuple(sorted((one for one in found if one.nvcc == nvcc), key=lambda one: (one.of, one.code)))


def file_name(proof: Proof) -> str:
    """Return the name of a proof's file."""
    return f"nvcc-{proof.nvcc}-sm{proof.of}-sm{proof.code}.json"
