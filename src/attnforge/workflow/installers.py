"""Keeps upstream's build away from the machine's package installers, and from every ninja but the seat.

A setup.py may run ``pip`` (MinkowskiEngine's runs ``pip uninstall``). The build's environment has none, so the next one
on PATH would be the machine's own. And a setup.py whose build was killed has no seat any more: the next ninja would
start all compilers of upstream's graph at once.
"""

from __future__ import annotations

from pathlib import Path

from attnforge.compile.seat.seat import VERSION
from attnforge.files import replacing

INSTALLERS = (
    "pip",
    "pip3",
    *(f"pip3.{minor}" for minor in range(8, 20)),
    "uv",
    "pipx",
    "conda",
    "mamba",
    "easy_install",
)
"""Programs that change an environment."""

_REFUSES = """\
#!/bin/sh
for word in "$@"; do
    if [ "$word" = uninstall ]; then
        echo "attnforge: skipped: ${0##*/} $*: a build uninstalls nothing" >&2
        exit 0
    fi
done
echo "error: ${0##*/} $*: attnforge lets no setup.py change an environment;" \\
    "name what its build needs under requirements in a recipe" >&2
exit 1
"""

# PyTorch compiles without ninja where there is none, so this one answers to --version as the seat does.
_IS_NOT_THE_SEAT = f"""\
#!/bin/sh
[ "$1" = --version ] && echo {VERSION} && exit 0
echo "ninja: the attnforge build that this program belongs to has ended: nothing is compiled" >&2
exit 1
"""


def refuse_installers(folder: Path) -> Path:
    """Write programs into ``folder``, which is made, that refuse under the names of installers; return it.

    They have to be first on PATH. To uninstall is no error: there is nothing of an earlier build to uninstall.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in INSTALLERS:
        _write_program(folder / name, _REFUSES)
    return folder


def refuse_ninja(folder: Path) -> Path:
    """Write a ``ninja`` into ``folder``, which is made, that compiles nothing; return the folder.

    It has to be second on PATH, after the seat's folder, and in a place that outlives the seat's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_program(folder / "ninja", _IS_NOT_THE_SEAT)
    return folder


def _write_program(path: Path, text: str) -> None:
    with replacing(path, lasting=False) as made:
        made.write_text(text, encoding="utf-8")
        made.chmod(0o755)
