"""The reference target: the wheels of the page of shell commands, by their names, and what is missing where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.host import Host, Toolkit
from attnforge.model.request import Request
from attnforge.workflow import machine as machines
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import Planned, plan

COMMIT = "b7d29fb3b79f0b78b1c369a52aaa6628dabfb0d7"
SAGE = "d1a57a546c3d395b1ffcbeecc66d81db76f3b4b5"
NODE = (Toolkit(home="/usr/local/cuda-12.8", cuda="12.8", nvcc="12.8.93"),)


@pytest.fixture
def make_planned(
    monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path
) -> Callable[..., Planned]:
    """Plan for the target on a machine with these toolkits, and without a network."""

    def make(package: str, toolkits: tuple[Toolkit, ...] = NODE) -> Planned:
        monkeypatch.setattr(machines, "probe", lambda *_: make_host(toolkits=toolkits))
        environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "UV_NO_CONFIG": "1"}
        return plan(Machine(environ), Request(package=package, target="reference"))

    return make


@pytest.mark.parametrize(
    ("package", "wheel", "commit", "codes"),
    [
        ("flash-attn", "flash_attn-2.7.2-cp311-cp311-linux_x86_64.whl", COMMIT, ["sm_80", "sm_90"]),
        ("flash-attn-3", "flashattn_hopper-3.0.0b1-cp311-cp311-linux_x86_64.whl", COMMIT, ["sm_90a"]),
        ("sageattention", "sageattention-2.2.0-cp311-cp311-linux_x86_64.whl", SAGE, ["sm_89", "sm_90a"]),
    ],
)
def test_its_wheels_have_upstreams_names(
    make_planned: Callable[..., Planned], package: str, wheel: str, commit: str, codes: list[str]
) -> None:
    planned = make_planned(package).plan
    assert planned.wheel == wheel
    assert planned.source.commit == commit
    assert [architecture.sm for architecture in planned.target.architectures] == codes
    assert (planned.target.python, planned.target.torch, planned.target.cuda) == ("3.11", "2.7.1", "12.8")
    assert planned.toolchain.nvcc == "12.8.93"


@pytest.mark.parametrize("package", ["flash-attn", "flash-attn-3", "sageattention"])
def test_a_missing_toolkit_is_fetched_from_nvidia(make_planned: Callable[..., Planned], package: str) -> None:
    pin = make_planned(package, ()).plan.toolchain
    assert (pin.origin, pin.cuda, pin.nvcc, pin.download_bytes) == ("nvidia", "12.8", "12.8.93", 81_298_228)
