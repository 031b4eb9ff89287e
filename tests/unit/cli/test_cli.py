from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.cli import main as program
from attnforge.cli.display import PlainDisplay, lines_of
from attnforge.cli.show import all_fetched, duration, plan_lines, size
from attnforge.cli.terminal import Terminal
from attnforge.errors import BuildError, HostError, RequestError, UncheckedError, WheelError
from attnforge.model.events import (
    Downloaded,
    Downloading,
    Event,
    GraphReceived,
    JobFinished,
    Message,
    PairFinished,
    Progress,
    UnitFinished,
    kinds,
)
from attnforge.model.host import Host
from attnforge.model.plan import Fetch, Resolution
from attnforge.workflow import machine as machines


def call(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = program.main(arguments, environ or {"HOME": "/nowhere"}, out, err)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def on_a_host(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host]) -> None:
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())


def test_help_names_every_verb() -> None:
    code, out, _ = call("--help")
    assert code == 0
    for verb in program.VERBS:
        assert f"  {verb}" in out


@pytest.mark.parametrize("verb", sorted(program.VERBS))
def test_every_verb_has_a_help_of_its_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main([verb, "--help"], {}, sys.stdout, sys.stderr)
    assert ended.value.code == 0
    assert f"attnforge {verb}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, io\nfrom attnforge.cli.main import main\nmain(['--help'], {}, io.StringIO(), io.StringIO())\n"
        "print([name for name in ('pydantic', 'rich', 'unearth', 'psutil', 'auditwheel') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["biuld"], "attnforge build"),
        (["plan"], "required"),
        (["plan", "flash-attn", "--gpus", "H100"], "did you mean --gpu?"),
        (["plan", "flash-attn", "--out", "dist"], "`attnforge build` takes it"),
        (["plan", "flash-attn", "--out=dist"], "`attnforge build` takes it"),
        (["audit", "x.whl", "--gpu", "H100"], "`attnforge plan` takes it"),
        (["plan", "flash-attn[x]"], "write flash-attn or flash-attn=="),
        (["plan", "flash-attn", "--head-dim", "64"], "did you mean --head-dims?"),
        (["plan", "flash-attn>=2"], "write flash-attn==VERSION"),
        (["plan", "flash attn!"], "is no package"),
        (["plan", "./no/such/folder"], "does not exist"),
        (["plan", "grouped-gemm", "--source", "git", "--gpu", "H100"], "no git repository of grouped-gemm is known"),
    ],
)
def test_wrong_commands_exit_2_and_say_what_is_right(on_a_host: None, arguments: list[str], said: str) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("x"), 2),
        (HostError("x"), 3),
        (BuildError("x"), 4),
        (WheelError("x"), 5),
        (UncheckedError("x"), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(program, "_dispatch", fail)
    assert call("plan", "x")[0] == code


def test_our_own_fault_exits_1_with_a_file_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(*_: object) -> int:
        raise ZeroDivisionError("at https://user:secret@index.example/simple")

    monkeypatch.setattr(program, "_dispatch", fail)
    code, _, err = call("plan", "x")
    assert code == 1
    text = Path(err.split("please send ")[1].strip()).read_text()
    assert "ZeroDivisionError" in text
    assert "secret" not in text


def test_an_error_is_json_too(on_a_host: None) -> None:
    code, out, _ = call("plan", "flash-attn", "--gpu", "T4", "--json")
    document = json.loads(out)
    assert (code, document["exit_code"], document["schema"]) == (2, 2, 1)
    assert document["error"]["hint"]


def test_plan_prints_what_build_would_do(on_a_host: None, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    code, out, _ = call("plan", "flash-attn", "--gpu", "H100", "--profile", "diffusion", "--explain", environ=environ)
    assert code == 0
    assert "flash_attn-2.8.3.post2+cu130torch2.11.sm90.diffusion-cp312-cp312-linux_x86_64.whl" in out
    assert "not sm_120: no GPU of the target needs it" in out
    assert list(tmp_path.iterdir()) == []


def test_plan_as_json_of_one_and_of_several(on_a_host: None) -> None:
    _, one, _ = call("plan", "flash-attn", "--gpu", "H100", "--json")
    _, two, _ = call("plan", "flash-attn", "flash-attn==2.7.2.post1", "--gpu", "H100", "--json")
    assert json.loads(one) == json.loads(two)[0]
    assert json.loads(two)[1]["version"] == "2.7.2.post1"


def test_packages(on_a_host: None) -> None:
    assert "flash-attn" in call("packages")[1]
    assert "--target reference" in call("packages", "--targets")[1]
    assert json.loads(call("packages", "--json")[1])["packages"]
    assert json.loads(call("packages", "--schema")[1])["title"] == "Recipe of attnforge"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (3.35e9, "3.4 GB")])
def test_bytes(count: float, text: str) -> None:
    assert size(count) == text


def test_events_have_lines_and_json() -> None:
    events: list[Event] = [
        Message("info", "log: x"),
        GraphReceived(73, 3, 6, 64, 0, 102.0),
        JobFinished(0, "a.cu", "cicc sm_90", 42.0, 41.0, 3_500_000_000, ok=False),
        JobFinished(0, "a.cu", "cudafe++", 42.0, 41.0, 3_500_000_000, ok=False, stopped=True),
        JobFinished(0, "a.cu", "ptxas sm_90", 42.0, 41.0, 3_500_000_000, ok=True),
        UnitFinished("b.cu", "compiled", 42.0, 41.0, 3_500_000_000),
        UnitFinished("c.cu", "cached", 42.0, 41.0, 3_500_000_000),
        PairFinished("2.12.1", "3.13", 65.0),
        Downloading(40_000_000, 81_300_000),
        Downloaded("cuda_nvcc", 79_000_000, 0, 3.0),
        Downloaded("cuda_cccl", 1_000_000, 400_000, 1.0),
        Progress(1, 5, 1, 2, 3, 4.0),
    ]
    out = io.StringIO()
    display = PlainDisplay(Terminal(out))
    for event in events:
        display(event)
        assert json.loads(json.dumps(event.to_json()))["event"] in kinds()
    assert "3 to compile (6 more merged into these), 0 available, 64 left out" in out.getvalue()
    assert "a.cu cicc sm_90 FAILED" in out.getvalue()
    assert "a.cu cudafe++ stopped after 42 s" in out.getvalue()
    assert "ptxas" not in out.getvalue()
    assert "b.cu compiled, 41 s of CPU, 3.5 GB" in out.getvalue()
    assert "c.cu cached" in out.getvalue()
    assert "modules: PyTorch 2.12.1, Python 3.13 made in 1 min 05 s\n" in out.getvalue()
    assert "toolchain: cuda_nvcc fetched, 79.0 MB\n" in out.getvalue()
    assert "toolchain: cuda_cccl fetched, 1.0 MB (400.0 kB of it fetched before)\n" in out.getvalue()
    assert lines_of(events[-1]) == ()


def test_a_live_display_draws_what_runs() -> None:
    from attnforge.cli.display import LiveDisplay
    from attnforge.model.events import JobStarted, StageStarted

    out = io.StringIO()
    display = LiveDisplay(Terminal(out))
    for event in (
        StageStarted("compile", "flash-attn"),
        GraphReceived(73, 5, 2, 66, 0, 102.0),
        JobStarted(0, "flash_fwd_hdim64_fp16_sm80.cu", "cicc sm_90", 42.0, 3_600_000_000),
        Progress(69, 73, 3_500_000_000, 3_600_000_000, 22_000_000_000, 80.0),
    ):
        display(event)
    display.console.print(display.render())
    text = out.getvalue()
    for part in (
        "compile: flash-attn",
        "1 of 5",
        "3.5 GB of 22.0 GB used",
        "flash_fwd_hdim64_fp16_sm80.cu cicc sm_90",
        "1 min 20 s left",
    ):
        assert part in text


def test_a_live_display_keeps_a_line_of_each_pair_above() -> None:
    from attnforge.cli.display import LiveDisplay

    out = io.StringIO()
    with LiveDisplay(Terminal(out)) as display:
        display(PairFinished("2.12.1", "3.13", 65.0))
    assert "modules: PyTorch 2.12.1, Python 3.13 made in 1 min 05 s" in out.getvalue()


def test_a_live_display_draws_what_is_fetched() -> None:
    from attnforge.cli.display import LiveDisplay
    from attnforge.model.events import StageFinished, StageStarted

    out = io.StringIO()
    display = LiveDisplay(Terminal(out))
    display(StageStarted("toolchain", "CUDA 12.8"))
    display(Downloading(40_000_000, 81_300_000))
    display.console.print(display.render())
    assert "40.0 MB of 81.3 MB" in out.getvalue()
    display(StageFinished("toolchain", "CUDA 12.8", 9.0))
    drawn = io.StringIO()
    display.console.file = drawn
    display.console.print(display.render())
    assert "MB" not in drawn.getvalue()


def test_plan_lines_say_what_is_fetched(make_resolution: Callable[..., Resolution]) -> None:
    toolkit = Fetch(what="CUDA 12.8.2 (cuda_nvcc)", where="NVIDIA", size=81_300_000)
    torch = Fetch(what="PyTorch 2.7.1", where="the package index", size=3_000_000_000, about=True)
    commit = Fetch(what="commit abc of x", where="https://example.org/x")
    one = make_resolution().model_copy(update={"fetches": (commit, torch, toolkit)})
    text = "\n".join(plan_lines(one, explain=False))
    assert "  to fetch   commit abc of x, from https://example.org/x: size unknown until it is fetched\n" in text
    assert "             PyTorch 2.7.1, from the package index: about 3.0 GB\n" in text
    assert "             CUDA 12.8.2 (cuda_nvcc), from NVIDIA: 81.3 MB\n" in text
    assert "to fetch" not in "\n".join(plan_lines(make_resolution(), explain=False))
    # What two need is counted once.
    other = one.model_copy(update={"fetches": (toolkit,)})
    assert list(all_fetched((one, other))) == ["to fetch in total: about 3.1 GB, and of unknown size commit abc of x"]
    assert list(all_fetched((other, other))) == ["to fetch in total: 81.3 MB"]
    assert list(all_fetched((make_resolution(),))) == []


def test_plan_lines_show_warnings_with_their_links(make_resolution: Callable[..., Resolution]) -> None:
    from attnforge.model.plan import PlanWarning

    warning = PlanWarning(subject="x", message="careful", hint="do this", link="https://example.org/1")
    lines = list(plan_lines(make_resolution().model_copy(update={"warnings": (warning,)}), explain=False))
    assert any("careful; do this" in line for line in lines)
    assert any("https://example.org/1" in line for line in lines)


def test_plan_of_a_universal_wheel_says_its_pairs(on_a_host: None, tmp_path: Path) -> None:
    words = ["plan", "flash-attn", "--gpu", "H100", "--universal", "--torch", "2.11-2.13", "--python", "3.10-3.13"]
    code, out, _ = call(*words, "--explain", environ={"HOME": str(tmp_path)})
    assert code == 0
    assert "CUDA 13.0, 12 pairs: PyTorch 2.11, 2.12, 2.13 x Python 3.10 to 3.13" in out
    assert "+cu130torch2.11to2.13.py3.10to3.13.sm90-py3-none-linux_x86_64.whl" in out
    code, _, err = call(*(word for word in words if word != "--universal"))
    assert code == 2
    assert "add --universal" in err
