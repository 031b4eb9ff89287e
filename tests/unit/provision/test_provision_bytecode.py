"""Bytecode of environments: compiled once, and whole or not there."""

from __future__ import annotations

import sys
from pathlib import Path

from attnforge.process import Command, run
from attnforge.provision import bytecode
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.uv import Uv

# Plays a disk that takes only the beginning: Python has written the bytecode of a module before it runs the module.
CUT = "import os\nos.truncate(__spec__.cached, 20)\n"


def test_what_is_imported_is_compiled_and_what_is_cut_off_is_removed(tmp_path: Path) -> None:
    for module, text in {"setuptools": "", "setuptools.build_meta": "import other", "other": CUT, "unused": ""}.items():
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path = path.with_suffix("") / "__init__.py" if module == "setuptools" else path
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    variables = {"PYTHONPATH": str(tmp_path)}
    done = bytecode.compile_bytecode(Path(sys.executable), Uv("uv", IndexSettings(), {}), variables)
    assert (done.code, done.output) == (0, "")
    compiled = {path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")}
    assert compiled == {"__init__", "build_meta"}
    again = run(Command((sys.executable, "-c", "import setuptools.build_meta"), tmp_path, variables))
    assert "marshal" not in again.output
