"""Draws the picture in the README: what a terminal shows of a build.

    python experiments/picture.py docs/build.svg -- ./forge build flash-attn --gpu H100 --profile diffusion ...

The command runs in a terminal that pyte emulates. The picture is the last screen, or the last one that shows the text
``--at``: with ``--at "s left"`` it has the live display. The home folder is shown as ``~``. Remove the compile results
of earlier runs first, so that something is compiled.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 118, 40


def screens(command: Sequence[str]) -> Iterator[pyte.Screen]:
    """Run a command in a terminal and yield the screen, one value that changes, after each output."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
        os.execvp(command[0], list(command))
    while True:
        try:
            output = os.read(terminal, 65536)
        except OSError:  # how Linux says that no process has the terminal open any more
            output = b""
        if not output:
            break
        # A terminal would do that to line ends; pyte leaves it to its user.
        stream.feed(output)
        yield screen
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"{shlex.join(command)} failed, wait status {status}")


def lines_of(screen: pyte.Screen) -> list[Text]:
    """Return a screen's lines down to the last one that is not empty."""
    shown = [_line(screen, row) for row in range(ROWS)]
    while shown and not shown[-1].plain.strip():
        shown.pop()
    return shown


def _line(screen: pyte.Screen, row: int) -> Text:
    line = Text()
    chars = (screen.buffer[row][column] for column in range(COLUMNS))
    for style, alike in groupby(chars, _style):
        line.append("".join(char.data for char in alike), style=style)
    line.rstrip()
    return line


def _style(char: pyte.screens.Char) -> str:
    known = {"default": "", "brown": "yellow"}
    colour = known.get(char.fg, f"#{char.fg}" if len(char.fg) == 6 and char.fg.isalnum() else char.fg)
    return " ".join(filter(None, ("bold" if char.bold else "", colour.replace("bright", "bright_"))))


def picture(lines: Sequence[Text], command: Sequence[str]) -> str:
    """Return the picture as SVG: the command, and below it the lines."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {shlex.join(command)}", style="bold"))
    for line in lines:
        hidden = line.plain.replace(str(Path.home()), "~")
        console.print(line if hidden == line.plain else Text(hidden))
    return console.export_svg(title="attnforge")


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--at", default="", help="a text that the screen has to show")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    last: list[Text] = []
    for screen in screens(options.command):
        if any(options.at in line for line in screen.display):
            last = lines_of(screen)
    if not last:
        sys.exit(f"no screen had {options.at!r} on it")
    options.svg.write_text(picture(last, options.command), encoding="utf-8")


if __name__ == "__main__":
    main()
