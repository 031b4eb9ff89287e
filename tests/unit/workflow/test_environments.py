"""Which environment upstream's build runs in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from attnforge.model.host import Installed
from attnforge.model.universal import Pair
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.overlay import below
from attnforge.workflow.machine import Machine
from attnforge.workflow.pairs import PairEnvironments


@dataclass
class Stand:
    """A machine that notes which environments are asked for."""

    asked: list[str] = field(default_factory=list)

    def environment(self, python: str, torch: str, cuda: str, requirements: tuple[str, ...]) -> BuildEnvironment:
        self.asked.append(f"{python} {torch} {cuda} {requirements}")
        return BuildEnvironment(Path("/made/bin/python"), Path("/made"), "", ())

    def overlay(self, installed: Installed, requirements: tuple[str, ...]) -> BuildEnvironment:
        self.asked.append(f"over {installed.prefix} {requirements}")
        return BuildEnvironment(Path("/over/bin/python"), Path(installed.folder), "", ())


def installed(torch: str = "2.11.0", **changes: object) -> Installed:
    values = {"python": "/e/bin/python", "version": "3.12.1", "prefix": "/e", "named_by": "--env", "folder": "/site"}
    return Installed.model_validate({**values, "torch": torch, "cuda": "13.0", **changes})


@pytest.mark.parametrize(
    ("found", "python", "torch", "over"),
    [
        (installed(), "3.12", "2.11.0", True),
        (installed("2.11.0+cu130"), "3.12", "2.11.0", True),
        (installed("2.6.0a0+e.nv25.01"), "3.12", "2.6.0a0+e.nv25.1", True),
        (installed(), "3.12", "2.12.0", False),
        (installed(), "3.11", "2.11.0", False),
        (installed(), "3.12", "", False),
        (None, "3.12", "2.11.0", False),
    ],
)
def test_an_environment_serves_its_own_python_and_pytorch_alone(
    found: Installed | None, python: str, torch: str, over: bool
) -> None:
    stand = Stand()
    environments = PairEnvironments(cast("Machine", stand), "13.0", ("ninja",), found)
    environments.having(python, torch)
    assert stand.asked == ["over /e ('ninja',)" if over else f"{python} {torch} 13.0 ('ninja',)"]


def test_a_pair_that_is_installed_is_looked_at_where_it_is() -> None:
    environments = PairEnvironments(cast("Machine", Stand()), "13.0", (), installed())
    mine, other = Pair(python="3.12", torch="2.11.0"), Pair(python="3.12", torch="2.12.1")
    assert environments.sites([mine, other]) == [(mine, Path("/site")), (other, Path("/made"))]


def test_what_is_below_an_overlay_comes_in_its_own_order_and_with_its_own_pth_files() -> None:
    found = installed(search=("/src", "/e/lib/site-packages", "/e/it's"), sites=("/e/lib/site-packages", "/e/it's"))
    assert below(found).splitlines() == [
        "/src",
        "import site; site.addsitedir('/e/lib/site-packages')",
        'import site; site.addsitedir("/e/it\'s")',
    ]
