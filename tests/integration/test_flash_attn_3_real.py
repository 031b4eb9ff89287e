"""FlashAttention 3 for real: from the tree in the xformers sdist, its smallest build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnforge.recipes.catalogue import find_recipe
from standins.independent import confirm
from standins.real import PYTHON, attnforge, install, printed

pytestmark = [pytest.mark.compile, pytest.mark.network]

SUBSET = ["--profile", "diffusion", "--head-dims", "128", "--dtypes", "bf16"]
TARGET = ["--gpu", "H100", "--torch", "2.11.0", "--python", PYTHON]
NAME = "flash_attn_3-3.0.0b1+cu130torch2.11.stable.sm90a.diffusion.hd128.bf16-cp39-abi3-linux_x86_64.whl"
CALL = """\
import torch, flash_attn_interface as f, flash_attn_3._C as c
print(c.__name__, torch.ops.flash_attn_3.fwd.default._schema.name, callable(f.flash_attn_func))
"""


def test_one_wheel_for_each_python_is_built_audited_and_imported(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "dist"
    done = attnforge(cache, "build", "flash-attn-3", *TARGET, *SUBSET, "--out", str(out), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    # Upstream's own settings leave out 229 units; the scheduler, the host code and one unit of kernels are compiled.
    graph = next(event for event in events if event["event"] == "GraphReceived")
    assert (graph["units"], graph["compile"], graph["empty"]) == (3, 3, 0)
    assert max(event["used_bytes"] for event in events if event["event"] == "Progress") <= min(
        event["budget_bytes"] for event in events if event["event"] == "Progress"
    )

    report = json.loads((out / f"{NAME}.report.json").read_text())
    assert report["audit"]["verdict"] == "good"
    (module,) = report["audit"]["modules"]
    assert module["architectures"] == ["sm_90a"]
    assert {(k["head_dim"], k["dtype"]) for k in module["kernels"]} == {(128, "bf16")}

    assert confirm(out / NAME).code == {"sm_90a"}

    interpreter = install(cache, tmp_path / "clean", str(out / NAME), "torch==2.11.0", "numpy")
    assert printed(interpreter, CALL) == "flash_attn_3._C flash_attn_3::fwd True"
    metadata = "import importlib.metadata as m; print([r for r in m.requires('flash-attn-3') if r.startswith('torch')])"
    assert printed(interpreter, metadata) == "['torch>=2.11']"

    # What the recipe says that upstream's own code refuses, it does refuse.
    (host,) = cache.glob("builds/*/source/*/third_party/flash-attention/hopper/flash_api_stable.cpp")
    text = host.read_text()
    for feature in find_recipe("flash-attn-3").features.values():
        assert feature.refused in text
