"""Proofs come from what compilers wrote, and from nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.steps import Step, Tool
from attnforge.compile.run.work import Batch, begin
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.plan import BuildPlan
from attnforge.model.sharing import Proof
from attnforge.workflow.prover import Prover, Verdict
from attnforge.workflow.proving import keep, proven, restricted, unwanted

PTX = """\
// Cuda compilation tools, release 13.0, V13.0.88

.version 9.0
.target sm_{code}
.address_size 64

\t// .globl\t{name}
.extern .shared .align 16 .b8 smem[];

.visible .entry {name}(
)
{{
	mov.u32 	%r1, {value};
	ret;

}}

"""


def watched(
    folder: Path, plan: BuildPlan, values: dict[str, int], labels: Callable[[str], list[str]], number: int = 0
) -> list[Verdict]:
    """Show a prover the steps of a unit whose kernel has another value for each architecture."""
    verdicts: list[Verdict] = []
    prover = Prover(plan, Prefixes({"/s": "source"}), "this test", verdicts.append)
    unit = Unit("/b/x.o", ("/s/x.cu",), ("nvcc",), "/b", Language.CUDA, kernel="forward-hdim64-fp16")
    graph = CompileGraph((unit,))
    work = begin(unit, Batch(0, graph, graph, (), {}, print), folder, folder, number)
    for code, value in values.items():
        text = PTX.format(code=code, name=f"kernel{number}", value=value)
        for tool, suffix, data in ((Tool.CICC, "ptx", text), (Tool.PTXAS, "cubin", f"code {code} {value}")):
            path = folder / f"{code}.{suffix}"
            path.write_text(data)
            step = Step(f"{tool} sm_{code}", tool, (tool, "-o", str(path)), writes=(str(path),), cwd=str(folder))
            work.steps[step.label] = step
    for label in labels(" ".join(values)):
        prover.watch(work, work.steps[label])
    return verdicts


def in_turn(codes: str) -> list[str]:
    return [f"{tool} sm_{code}" for code in codes.split() for tool in ("cicc", "ptxas")]


def test_the_same_ptx_is_a_proof(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion")
    (verdict,) = watched(tmp_path, plan, {"90": 7, "80": 7}, in_turn)
    assert verdict.pair == ("80", "90")
    assert verdict.proof is not None
    (unit,) = verdict.proof.units
    assert (unit.units, unit.versions, unit.functions, unit.left_out) == (("forward-hdim64-fp16",), ("2.8.3",), 1, 0)
    assert unit.code == hashlib.sha256(b"code 90 7").hexdigest()
    assert unit.ptx == hashlib.sha256((tmp_path / "90.ptx").read_bytes()).hexdigest()


def test_other_ptx_is_none_and_the_function_is_named(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    verdicts = watched(tmp_path, make_plan(), {"80": 7, "90": 7, "100": 8, "120": 8}, in_turn)
    found = {verdict.pair: verdict for verdict in verdicts}
    assert len(found) == 6
    assert {pair for pair, verdict in found.items() if verdict.proof} == {("80", "90"), ("100", "120")}
    assert found["80", "120"].why == "1 of 5 parts differ, the first is kernel0"
    assert proven(verdicts) == 2


def test_a_unit_is_judged_when_all_of_it_is_there(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    assert not watched(tmp_path, make_plan(), {"80": 7, "90": 7}, lambda codes: in_turn(codes)[:-1])


def test_proofs_are_added_to_a_file(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    plan, folder = make_plan(), tmp_path / "shared"
    for number in (1, 2, 1):
        (verdict,) = watched(tmp_path, plan, {"80": 7, "90": 7}, in_turn, number)
        assert verdict.proof is not None
        path = keep(verdict.proof, folder)
    assert path.name == f"nvcc-{plan.toolchain.nvcc}-sm80-sm90.json"
    whole = Proof.model_validate_json(path.read_text(encoding="utf-8"))
    assert len(whole.units) == 2
    assert len(whole.parts) == 6


def test_a_damaged_file_is_not_overwritten(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    (verdict,) = watched(tmp_path, make_plan(), {"80": 7, "90": 7}, in_turn)
    assert verdict.proof is not None
    path = keep(verdict.proof, tmp_path / "shared")
    path.write_text('{"schema": 1}')
    with pytest.raises(ValueError, match="package"):
        keep(verdict.proof, tmp_path / "shared")
    assert path.read_text() == '{"schema": 1}'


def test_some_units_of_a_plan_are_compiled(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion", head_dims=(64, 128))
    some = restricted(plan, "forward-hdim64-.*-causal")
    assert set(some.selection.kept) == {"forward-hdim64-fp16-causal", "forward-hdim64-bf16-causal"}
    assert set(some.selection.dropped) | set(some.selection.kept) == {*plan.selection.dropped, *plan.selection.kept}
    assert restricted(plan, "") == plan


def test_some_files_of_a_package_are_compiled(tmp_path: Path) -> None:
    for name in ("a/scan_fwd.cu", "a/scan_bwd.cu", "a/scan.cpp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert unwanted(tmp_path, "scan_fwd") == {str(tmp_path / "a/scan_bwd.cu")}
