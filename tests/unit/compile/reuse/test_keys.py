from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.steps import Step, dissect, folders, outputs
from attnforge.compile.reuse.keys import step_key
from standins.dryruns import ONE, THREE

PURE = ("cudafe++", "cicc sm_90a", "ptxas sm_90a")


class Ground:
    """The steps of a call in a folder, all that they read, and programs that are not run."""

    def __init__(self, folder: Path, text: str = ONE) -> None:
        self.bin, work = folder / "bin", folder / "work"
        for path in (self.bin, work):
            path.mkdir(parents=True)
        self.id = work / "unit.module_id"
        self.id.write_text("_id_")
        text = text.replace("/p/cuda/bin/../nvvm/bin", str(self.bin)).replace("/p/src", str(folder / "src"))
        settings, steps = dissect(
            text, str(work), str(self.id), str(folder / "a.o"), Prefixes({str(folder / "src"): "source"})
        )
        self.steps = {step.label: step for step in steps}
        for name in folders(steps):
            Path(name).mkdir(parents=True, exist_ok=True)
        for step in steps:
            for path in map(Path, step.reads):
                path.write_text(f"what {path.name} holds")
        for name in ("cicc", "cudafe++", "ptxas"):
            self.program(name)
        self.environment = {**settings, "PATH": str(self.bin)}

    def program(self, name: str, content: str = "\x7fELF") -> None:
        (self.bin / name).write_text(content)
        (self.bin / name).chmod(0o755)

    def key(self, label: str, change: Callable[[Step], Step] = lambda step: step) -> str | None:
        return step_key(change(self.steps[label]), self.environment)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path / "here")


@pytest.mark.parametrize("label", PURE)
def test_a_key_is_the_same_in_another_folder(ground: Ground, tmp_path: Path, label: str) -> None:
    key = ground.key(label)
    assert key is not None
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert Ground(tmp_path / "far/away").key(label) == key


@pytest.mark.parametrize("label", PURE)
def test_a_key_does_not_know_of_other_architectures(ground: Ground, tmp_path: Path, label: str) -> None:
    assert Ground(tmp_path / "three", THREE).key(label) == ground.key(label)


def test_steps_have_keys_of_their_own(tmp_path: Path) -> None:
    ground = Ground(tmp_path, THREE)
    keys = [ground.key(label) for label in ("cudafe++", "cicc sm_80", "cicc sm_90a", "cicc sm_90", "ptxas sm_80")]
    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "label", ["preprocess", "preprocess sm_80", "fatbinary", "compile", pytest.param("ptxas compute_90", id="a check")]
)
def test_other_steps_run(tmp_path: Path, label: str) -> None:
    assert Ground(tmp_path, THREE).key(label) is None


def option(word: str) -> Callable[[Step], Step]:
    return lambda step: replace(step, argv=(*step.argv, word))


@pytest.mark.parametrize("label", PURE)
def test_all_that_goes_in_counts(ground: Ground, label: str) -> None:
    keys = [ground.key(label), ground.key(label, option("-O1"))]
    Path(ground.steps[label].reads[0]).write_text("other")
    keys.append(ground.key(label))
    ground.program(Path(ground.steps[label].argv[0]).name, "\x7fELF other")
    keys.append(ground.key(label))
    ground.environment["NVVM_IR_VER_CHK"] = "0"
    keys.append(ground.key(label))
    if "ptxas" not in label:
        ground.id.write_text("_other_")
        keys.append(ground.key(label))
    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["NVVMIR_LIBRARY_DIR", "CICC_PATH", "TMPDIR", "HOME", "PWD", "LD_LIBRARY_PATH", "TOP"])
@pytest.mark.parametrize("label", PURE)
def test_variables_that_change_nothing_do_not_count(ground: Ground, label: str, name: str) -> None:
    before = ground.key(label)
    ground.environment[name] = "/elsewhere"
    assert ground.key(label) == before


def test_the_contents_of_a_file_of_the_toolkit_count(ground: Ground, tmp_path: Path) -> None:
    keys = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        library = tmp_path / folder / "libdevice.10.bc"
        library.write_text("one")
        keys.append(ground.key("cicc sm_90a", option(str(library))))
        assert ground.key("cicc sm_90a", option(f"--library={library}")) not in (keys[0], None)
    assert keys[0] == keys[1]
    library.write_text("another")
    assert ground.key("cicc sm_90a", option(str(library))) not in (keys[0], None)


@pytest.mark.parametrize("word", ["/no/such/file", "--library=/no/such/file", "-g", "-generate-line-info"])
def test_what_can_not_be_known_has_no_key(ground: Ground, word: str) -> None:
    assert ground.key("cicc sm_90a", option(word)) is None


def test_line_information_of_ptx_is_ptxas_own_business(ground: Ground) -> None:
    assert ground.key("ptxas sm_90a", option("--generate-line-info")) is not None


def test_nobody_knows_what_a_script_runs(ground: Ground) -> None:
    ground.program("ptxas", "#!/bin/sh\nexec /other/ptxas")
    assert ground.key("ptxas sm_90a") is None
    (ground.bin / "ptxas").unlink()
    assert ground.key("ptxas sm_90a") is None


def test_a_file_that_is_missing_is_an_error(ground: Ground) -> None:
    os.unlink(ground.steps["cicc sm_90a"].reads[0])  # noqa: PTH108
    with pytest.raises(FileNotFoundError):
        ground.key("cicc sm_90a")


def test_outputs_have_names_that_are_the_same_everywhere(ground: Ground, tmp_path: Path) -> None:
    three = Ground(tmp_path / "three", THREE)
    for label, names in {
        "cudafe++": {"c"},
        "cicc sm_90a": {"output", "stub"},
        "ptxas sm_90a": {"output"},
    }.items():
        assert outputs(ground.steps[label]).keys() == outputs(three.steps[label]).keys() == names
        assert set(outputs(ground.steps[label]).values()) == set(ground.steps[label].writes)
    assert outputs(three.steps["ptxas compute_90"]) == {}
