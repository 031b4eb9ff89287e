"""What a user reads of a plan against a PyTorch that is installed."""

from __future__ import annotations

import json
from collections.abc import Callable

from attnforge.cli.show import plan_lines
from attnforge.model.host import Active, Host, Installed, Toolkit
from attnforge.model.plan import Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.package.provenance import documents
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.resolver import resolve

SOURCE = SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="a" * 64)
NIGHTLY = Installed(
    python="/opt/venv/bin/python",
    version="3.12.1",
    prefix="/opt/venv",
    named_by="VIRTUAL_ENV",
    torch="2.12.0.dev20260101+cu130",
    calls_itself="2.12.0.dev20260101+cu130",
    cuda="13.0",
    digest="d" * 64,
)


def against(host: Host, installed: Installed | None) -> Resolution:
    request = Request(package="flash-attn", gpus=("H100",))
    active = Active(installed=installed, passed=(("/usr (python3 on PATH)", "it has no PyTorch"),))
    return resolve(request, find_recipe("flash-attn"), "2.8.3", SOURCE, host, active=active)


def test_the_plan_says_whose_pytorch_it_is_and_that_it_is_no_release(make_host: Callable[..., Host]) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="13.0", nvcc="13.0.88"),))
    lines = list(plan_lines(against(host, NIGHTLY), explain=True))
    place = "PyTorch 2.12.0.dev20260101+cu130 of /opt/venv (VIRTUAL_ENV)"
    assert f"  against    {place}, which is not changed" in lines
    assert any(line.startswith("  warning    ") and "no official release" in line for line in lines)
    assert f"      because {place}" in lines
    assert "      not /usr (python3 on PATH): it has no PyTorch" in lines
    without = list(plan_lines(against(host, None), explain=True))
    assert not any("against" in line for line in without)
    assert "      not /usr (python3 on PATH): it has no PyTorch" in without


def test_provenance_says_what_the_pytorch_was(make_host: Callable[..., Host]) -> None:
    plan = against(make_host(toolkits=(Toolkit(home="/cuda", cuda="13.0", nvcc="13.0.88"),)), NIGHTLY).plan
    provenance = json.loads(documents(plan, "attnforge")["attnforge/provenance.json"])
    assert (provenance["installed"]["official"], provenance["installed"]["digest"]) == (False, "d" * 64)
    assert "/opt/venv" not in json.dumps(provenance)
