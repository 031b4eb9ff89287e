"""Keeps upstream's build away from the machine's package installers.

A setup.py may run ``pip`` (MinkowskiEngine's runs ``pip uninstall``). The build's environment has none, so the next one
on PATH would be the machine's own.
"""

from __future__ import annotations

from pathlib import Path

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


def refuse_installers(folder: Path) -> Path:
    """Write programs into ``folder``, which is made, that refuse under the names of installers; return it.

    They have to be first on PATH. To uninstall is no error: there is nothing of an earlier build to uninstall.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in INSTALLERS:
        program = folder / name
        program.write_text(_REFUSES, encoding="utf-8")
        program.chmod(0o755)
    return folder
