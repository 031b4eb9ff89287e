"""Whether the modules of a universal wheel load: each with its pair, as the loader inside the wheel does it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attnforge import process
from attnforge.check.observations import NO_DRIVER
from attnforge.errors import BuildError
from attnforge.model.events import Message
from attnforge.model.universal import Pair, Universal, UniversalModule
from attnforge.workflow.pairs import PairEnvironments
from attnforge.workflow.trial import unpack
from attnforge.workflow.universal import Site

# Memory that importing PyTorch takes without a GPU (0.4 to 0.6 GB were seen), and some room.
_IMPORT_BYTES = 1_000_000_000

_LOAD = """\
import importlib.util, sys
name, path = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
print(sys.modules[name].__file__, flush=True)
# Nothing that ends with the interpreter may say a last word.
import os
os._exit(0)
"""


def prove(site: Site, universal: Universal, wheel: Path, pairs: Sequence[Pair]) -> None:
    """Load every module of a wheel in an interpreter of each pair, as its loader does.

    What can't be tried, since it needs the driver's library and this machine has none, is told of. BuildError where a
    module does not load, or where another one is taken than the pair's.
    """
    at_once = max(1, min(site.means.slots, site.means.budget_bytes // _IMPORT_BYTES))
    with tempfile.TemporaryDirectory(prefix="attnforge-import-", dir=wheel.parent) as made:
        unpacked = Path(made)
        unpack(wheel, unpacked)
        with ThreadPoolExecutor(at_once) as pool:
            tried = [(module, pair) for pair in pairs for module in universal.modules]
            work = [pool.submit(_loads, site.environments, unpacked, module, pair) for module, pair in tried]
            untried = {module.name for (module, _), one in zip(tried, work, strict=True) if not one.result()}
    if untried:
        names = ", ".join(sorted(untried))
        told = f"not loaded here, since this machine has no driver, whose libcuda.so.1 they need: {names}"
        site.observe(Message("info", told))


def _loads(environments: PairEnvironments, unpacked: Path, module: UniversalModule, pair: Pair) -> bool:
    """Load a pair's module; False where only the driver's library is missing. BuildError where it does not load."""
    machine, loader = environments.machine, str(unpacked / module.folder / "__init__.py")
    environment = environments.of(pair)
    argv = (str(environment.python), "-I", "-B", "-c", _LOAD, module.name, loader)
    env = process.base_environment(machine.environ) | dict(environment.variables)
    outcome = machine.runner(process.Command(argv, unpacked, env, timeout=300))
    if NO_DRIVER in outcome.output:
        return False
    lines = outcome.output.strip().splitlines() or ["it ended without a word"]
    wanted = f"{unpacked / module.folder / pair.folder}/"
    if not outcome.ok or not lines[-1].startswith(wanted):
        told = next((line for line in reversed(lines) if re.match(r"\w*Error\b", line)), lines[-1])
        raise BuildError(f"{module.name} does not load with {pair}", why=told)
    return True
