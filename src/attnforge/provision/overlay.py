"""An environment over one of the user's: what upstream's build needs besides PyTorch, and nothing of it changed.

It is a virtual environment of the same Python. Its own packages come first; a ``.pth`` file puts the folders of the
user's environment behind them. What Python compiles goes to our cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from attnforge.errors import HostError
from attnforge.model.host import Installed
from attnforge.paths import Folders
from attnforge.process import Command, base_environment
from attnforge.provision.bytecode import UNWRITTEN, compile_bytecode
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.store import Facts, provide
from attnforge.provision.uv import Uv

_LAYOUT = 1  # raised when what is in an overlay's folder changes

# Requirements of requirements that must not bring a second PyTorch: the one of the user's environment is meant.
_PROVIDED = "torch ; python_version < '3'\n"

_LOOK = "import torch, os; print('torch:', os.path.dirname(os.path.dirname(torch.__file__)))"


def provide_overlay(installed: Installed, requirements: Iterable[str], folders: Folders, uv: Uv) -> BuildEnvironment:
    """Return the overlay of an environment with these requirements, made first where it is not there.

    HostError where it can't be made, or where the PyTorch that is found in it is another one; RequestError where no
    such packages exist.
    """
    wanted = tuple(sorted(requirements))
    digest = _digest(installed, wanted)
    variables = _variables(folders, uv)
    entry = folders.environments / digest[:32]
    facts = provide(entry, lambda folder: _make(folder, installed, wanted, uv, variables), _healthy)
    own = f"torch=={installed.torch}"
    return BuildEnvironment(
        python=Path(facts["python"]),
        site_packages=Path(installed.folder),
        digest=digest,
        freeze=tuple(sorted((*facts["freeze"], own))),
        variables=tuple(sorted(variables.items())),
        headers=_headers(installed),
        libraries=tuple(map(Path, installed.libraries)),
    )


def _digest(installed: Installed, requirements: tuple[str, ...]) -> str:
    """Return what names an overlay: another PyTorch in the same place needs a new one, which is looked at again."""
    environment = installed.model_copy(update={"named_by": ""}).to_json()
    made_of = {"installed": environment, "requirements": requirements, "at": _LAYOUT}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _variables(folders: Folders, uv: Uv) -> dict[str, str]:
    """Return what the overlay's Python has to see: no bytecode beside the user's files, and where libraries are."""
    found = {"LD_LIBRARY_PATH": uv.environ.get("LD_LIBRARY_PATH", "")}
    return {"PYTHONPYCACHEPREFIX": str(folders.bytecode), **{name: value for name, value in found.items() if value}}


def _healthy(facts: Facts) -> bool:
    return Path(facts["python"]).exists()


def _make(
    folder: Path, installed: Installed, requirements: tuple[str, ...], uv: Uv, variables: dict[str, str]
) -> Facts:
    venv = folder / "venv"
    uv.venv(venv, installed.python)
    python = venv / "bin" / "python"
    own = next(venv.glob("lib/python3*/site-packages"))
    if requirements:
        provided = folder / "provided.txt"
        provided.write_text(_PROVIDED, encoding="utf-8")
        uv.install(python, requirements, "--overrides", str(provided))
    freeze = list(uv.freeze(python))
    (own / "attnforge-below.pth").write_text(below(installed), encoding="utf-8")
    compile_bytecode(python, uv, variables)
    _check(python, installed, uv, variables)
    return {"python": str(python), "freeze": freeze}


def below(installed: Installed) -> str:
    """Return the ``.pth`` file that puts the folders of an environment behind one's own.

    Those of a site have ``.pth`` files that count, as those of a PyTorch that is installed in development mode.
    """
    lines = [
        f"import site; site.addsitedir({folder!r})" if folder in installed.sites else folder
        for folder in installed.search
    ]
    return "\n".join(lines) + "\n"


def _check(python: Path, installed: Installed, uv: Uv, variables: dict[str, str]) -> None:
    environment = base_environment(uv.environ) | variables | UNWRITTEN
    outcome = uv.runner(Command((str(python), "-c", _LOOK), python.parent, environment, timeout=600))
    found = next((line[7:] for line in outcome.output.splitlines() if line.startswith("torch: ")), "")
    if Path(found) != Path(installed.folder):
        last = outcome.output.strip().splitlines()[-1:] or [f"exit code {outcome.code}"]
        raise HostError(
            f"{installed} can't be used from an environment over it",
            why=f"the PyTorch there is in {found}" if found else last[0],
            hint=f"{installed.python} -c 'import torch' shows whether it works; --torch VERSION takes another one",
        )


def _headers(installed: Installed) -> tuple[Path, ...]:
    """Return the header folders of CUDA's libraries in an environment, which a partial toolkit lacks (FA#157).

    pip's packages have them beside torch; conda's in the folder of the target.
    """
    beside = (path for site in installed.sites for path in Path(site).glob("nvidia/*/include"))
    conda = Path(installed.prefix, "targets/x86_64-linux/include")
    return tuple(sorted({path for path in (*beside, conda) if path.is_dir()}))
