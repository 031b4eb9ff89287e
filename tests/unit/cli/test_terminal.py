"""What others have named can't control a terminal, whichever verb prints it."""

from __future__ import annotations

import ast
import io
import json
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnforge.cli
from attnforge.cli.display import LiveDisplay, PlainDisplay
from attnforge.cli.main import main
from attnforge.cli.terminal import Terminal, one_line, visible
from attnforge.errors import AttnforgeError, BuildError
from attnforge.model.events import (
    Event,
    GraphReceived,
    JobFinished,
    JobRetried,
    JobStarted,
    Message,
    PairFinished,
    Progress,
    StageFinished,
    StageStarted,
    UnitFinished,
)

# F22: a cursor that goes up, a title, what C1 writes in one character, letters that run backwards, a line of its own.
ATTACKS = [
    "\x1b[1A\x1b[2K\r",
    "\x1b]0;title\x07",
    "\x9b1A\x9b2K",
    "\x90q\x9c",
    "\u202elhw\u202c",
    "\u2066x\u2069",
    "\u200f",
    "\ufeff",
    "\x7f\x08\x08",
    "\u2028",
    "\x85",
    "\x0b",
    "\udc9b",
    "\U000e0041",
]


class Screen(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def is_harmless(text: str) -> bool:
    return all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)


@given(st.text())
def test_nothing_that_is_printed_controls(text: str) -> None:
    assert is_harmless(visible(text))
    assert "\n" not in one_line(text) and "\t" not in one_line(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs", "Mn"))))
def test_text_stays_as_it_is(text: str) -> None:
    """Also letters of other scripts, box drawings and combining marks."""
    assert visible(text) == one_line(text) == text


@given(st.recursive(st.text(st.characters(codec=None)), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_stays_json(document: object) -> None:
    out = io.StringIO()
    Terminal(out).json({"x": document})
    assert json.loads(out.getvalue()) == {"x": document}
    assert is_harmless(out.getvalue())


@given(st.lists(st.text()))
def test_each_text_is_one_line(texts: list[str]) -> None:
    out = io.StringIO()
    Terminal(out).lines(texts)
    assert out.getvalue().count("\n") == len(texts)


@given(st.text(), st.text(), st.text())
def test_no_line_of_an_error_begins_as_ours_do(what: str, why: str, hint: str) -> None:
    out = io.StringIO()
    Terminal(out).error(BuildError(what, why=why, hint=hint), "attnforge")
    starts = ("attnforge: ", "why: ", "hint: ")
    assert all(line.startswith((*starts, "    ")) for line in out.getvalue().removesuffix("\n").split("\n"))
    assert sum(line.startswith(starts) for line in out.getvalue().split("\n")) == 1 + bool(why) + bool(hint)


@pytest.mark.parametrize("attack", [*ATTACKS, "\n"])
def test_the_name_of_a_file_in_a_wheel_forges_no_verdict(tmp_path: Path, attack: str) -> None:
    wheel = tmp_path / "it-1.0-cp311-cp311-linux_x86_64.whl"
    name = f"it/x{attack}{wheel.name}: good".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, "")
        archive.writestr(f"{name}.so", "")
    for words in (
        ["audit", str(wheel)],
        ["audit", str(wheel), str(wheel)],
        ["audit", "--compare", str(wheel), str(wheel)],
    ):
        out, err = io.StringIO(), io.StringIO()
        code = main(words, {"HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path)}, out, err)
        shown = out.getvalue() + err.getvalue()
        assert code != 0 and shown
        assert is_harmless(shown)
        assert not any(line.startswith(f"{wheel.name}: good") for line in shown.split("\n"))


@pytest.mark.parametrize("attack", [*ATTACKS, "\n"])
@pytest.mark.parametrize("live", [False, True])
def test_names_of_units_and_lines_of_logs_in_a_build(attack: str, live: bool) -> None:
    name = f"a{attack}.cu"
    events: list[Event] = [
        StageStarted(name, name),
        GraphReceived(1, 1, 0, 0, 0, 1.0),
        JobStarted(0, name, name, 1.0, 1),
        JobFinished(0, name, name, 1.0, 1.0, 1, ok=False),
        JobRetried(name, name, name, 1),
        UnitFinished(name, name, 1.0, 1.0, 1),
        PairFinished(name, name, 1.0),
        Message("warning", name),
        Progress(0, 1, 1, 1, 1, 1.0),
        StageFinished(name, name, 1.0),
    ]
    screen = Screen()
    if not live:
        display = PlainDisplay(Terminal(screen))
        for event in events:
            display(event)
        assert is_harmless(screen.getvalue())
    else:
        with LiveDisplay(Terminal(screen)) as drawn:
            for event in events:
                drawn(event)
                drawn.console.print(drawn.render())
        # rich's own sequences are there; what came from the names is not.
        assert f"a{attack}" not in screen.getvalue()
    assert f"a{one_line(attack)}.cu" in screen.getvalue()


@pytest.mark.parametrize("attack", ATTACKS)
def test_words_of_the_command_line_are_shown_and_not_obeyed(tmp_path: Path, attack: str) -> None:
    for words in (
        ["plan", f"flash-attn{attack}", "--gpu", "H100"],
        [f"pl{attack}an"],
        ["plan", "x", f"--gpu={attack}"],
    ):
        out, err = io.StringIO(), io.StringIO()
        assert main(words, {"HOME": str(tmp_path)}, out, err) != 0
        assert is_harmless(out.getvalue() + err.getvalue())


def test_a_traceback_goes_through_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise AttnforgeError("\x1b[2J\u202e")

    monkeypatch.setattr("attnforge.cli.main._dispatch", fail)
    out, err = io.StringIO(), io.StringIO()
    main(["plan", "--debug"], {}, out, err)
    assert "Traceback" in err.getvalue() and is_harmless(err.getvalue())


def test_there_is_one_door() -> None:
    """No verb writes to a stream itself: that is left to the terminal and to the stream behind it."""
    for path in Path(attnforge.cli.__file__).parent.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        named = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        plain = {call.id for call in calls if isinstance(call, ast.Name)}
        assert "print" not in plain, path.name
        assert path.name in ("terminal.py", "streams.py") or "write" not in named, path.name
        raw = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)} & {"raw"}
        assert not raw or path.name in ("terminal.py", "display.py", "figures.py"), path.name


def test_a_finding_is_shown_with_its_meaning_and_hint() -> None:
    from attnforge.cli.show import finding_lines
    from attnforge.model.finding import Finding, Severity

    finding = Finding(code="c", severity=Severity.ERROR, subject="s", seen="o", means="m", hint="h", link="l")
    assert list(finding_lines(finding)) == ["BAD   s: o", "        m", "        hint: h", "        see: l"]
