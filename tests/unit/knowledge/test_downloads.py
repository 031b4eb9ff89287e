"""How much is downloaded."""

from __future__ import annotations

import pytest

from attnforge.knowledge.downloads import archive_bytes, toolchain_bytes, torch_bytes
from attnforge.knowledge.toolchains import pypi_toolchains
from attnforge.knowledge.torch import torch_releases
from attnforge.recipes.catalogue import recipes


@pytest.mark.parametrize(
    ("version", "cuda", "pythons", "megabytes"),
    [
        ("2.7.1", "12.6", 1, 821 + 2174),
        ("2.7.1", "12.6", 3, 3 * 821 + 2174),
        ("2.7.1", "12.8", 1, 888 + 3029),  # libraries are CUDA's: those of 2.8.0, the nearest with 12.8
        ("2.9.0", "12.8", 1, 900 + 3168),
        ("2.3.1", "11.8", 1, 797 + 2048),  # no release with 11.8 is in the table
        ("2.16.0", "13.2", 1, 539 + 2461),
    ],
)
def test_pytorch(version: str, cuda: str, pythons: int, megabytes: int) -> None:
    assert torch_bytes(version, cuda, pythons) == megabytes * 10**6


def test_the_default_build_of_each_listed_minor_has_a_figure_of_its_own() -> None:
    figures = {}
    for release in torch_releases():
        figures[release.version.rpartition(".")[0]] = torch_bytes(release.version, release.index_cuda)
    assert len(set(figures.values())) >= len(figures) - 1, figures  # 2.14 and 2.15 have as many MB
    assert all(2 * 10**9 < size < 5 * 10**9 for size in figures.values())


def test_every_toolchain_of_the_index_and_every_pinned_archive_has_a_size() -> None:
    assert all(toolchain_bytes(toolchain.cuda) for toolchain in pypi_toolchains())
    assert toolchain_bytes("12.8") == 0
    pinned = [sha256 for recipe in recipes().values() for one in recipe.releases for sha256 in one.sha256.values()]
    pinned += [c.sha256 for recipe in recipes().values() for one in recipe.releases for c in one.carriers.values()]
    assert pinned and all(archive_bytes(sha256) > 10_000 for sha256 in pinned)
    assert archive_bytes("0" * 64) == 0
