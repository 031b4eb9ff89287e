from __future__ import annotations
import pytest
from standins import house
from standins.forge import Forge
pytest_plugins = ["standins.fixtures"]
def test_x(forge: Forge) -> None:
    done = forge.build(house.tinykernels(forge.folder / "tinykernels")).ok()
    print(done.out, done.err, forge.toolkit.calls())
    done = forge.build(house.flash_attn(forge.folder / "flash"), "--profile", "diffusion", "--head-dims", "64").ok()
    print(done.out, done.err, forge.toolkit.calls())
