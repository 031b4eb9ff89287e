"""Host code for real: the units that the host compiler makes, of a few shapes of a build, against PyTorch's headers.

All shapes and every PyTorch are ``python experiments/hosts.py``; this is its fair sample, of the default PyTorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attnforge.knowledge.torch import default_torch
from attnforge.recipes.catalogue import find_recipe
from standins.real import environment

pytestmark = [pytest.mark.compile, pytest.mark.network]

HOSTS = Path(__file__).parents[2] / "experiments" / "hosts.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for these tests: the second finds the PyTorch of the first."""
    return tmp_path_factory.mktemp("hosts") / "cache"


def hosts(cache: Path, *options: str) -> dict[str, Any]:
    """Run the command and return its document; every row of it has compiled."""
    command = [sys.executable, str(HOSTS), "--torch", default_torch().version, "--jobs", "2", "--json", *options]
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True)
    assert done.stdout, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    assert [row for row in document["rows"] if row["error"]] == []
    assert (document["not_run"], done.returncode) == ([], 0)
    return document


def test_flash_attention_2_with_everything_with_nothing_and_in_between(cache: Path) -> None:
    default = f"flash-attn=={find_recipe('flash-attn').default_version}"
    rows = hosts(cache, "--packages", default, "--sample", "1", "--seed", "12")["rows"]
    found = {(row["shape"], row["way"]) for row in rows}
    assert {("full", "as built"), ("full", "fallback"), ("full, universal", "as built")} <= found
    # It leaves out every feature, so each one's guard is in the header.
    assert {("without any feature", "as built"), ("without any feature, universal", "as built")} <= found
    assert len({row["shape"] for row in rows}) == 5


def test_flash_attention_3_with_everything(cache: Path) -> None:
    rows = hosts(cache, "--packages", "flash-attn-3==3.0.0b1", "--only", "full")["rows"]
    assert [(row["shape"], row["way"]) for row in rows] == [("full", "as built")]
