"""Whether the modules of a universal wheel load: each with its pair, as the loader inside the wheel does it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attnforge import process
from attnforge.check.observations import NO_DRIVER
from attnforge.errors import BuildError
from attnforge.model.universal import Pair, UniversalModule
from attnforge.process.guard import temporary_folder
from attnforge.workflow.artifacts import Packed, Parts
from attnforge.workflow.job import Context
from attnforge.workflow.pairs import PairEnvironments
from attnforge.workflow.trial import unpack

# Memory that importing PyTorch takes without a GPU (0.4 to 0.6 GB were seen), and some more.
_IMPORT_BYTES = 1_000_000_000

_LOAD = """\
import importlib.util, sys
name, path = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
print(sys.modules[name].__file__, flush=True)
# Nothing that ends with the interpreter may print anything after that.
import os
os._exit(0)
"""


def load_modules(context: Context) -> None:
    """Load the modules of each pair in an interpreter of that pair, as the wheel's loader does.

    A module that needs the driver's library can't be loaded on a machine without one: that is reported. BuildError
    where a module does not load, or where another one is taken than the pair's.
    """
    job, wheel, modules = context.job, context.of(Packed).wheel, context.of(Parts).universal.modules
    environments = context.of(PairEnvironments)
    at_once = max(1, min(job.limits.slots, job.limits.budget_bytes // _IMPORT_BYTES))
    with temporary_folder("attnforge-import-", wheel.parent) as unpacked:
        unpack(wheel, unpacked)
        with ThreadPoolExecutor(at_once) as pool:
            tried = [(module, pair) for pair in job.pairs for module in modules]
            work = [pool.submit(_loads, environments, unpacked, module, pair) for module, pair in tried]
            untried = {module.name for (module, _), one in zip(tried, work, strict=True) if not one.result()}
    if untried:
        names = ", ".join(sorted(untried))
        job.tell(f"not loaded here, since this machine has no driver, whose libcuda.so.1 they need: {names}")


def _loads(environments: PairEnvironments, unpacked: Path, module: UniversalModule, pair: Pair) -> bool:
    """Load a pair's module; False where only the driver's library is missing. BuildError where it does not load."""
    machine, loader = environments.machine, str(unpacked / module.folder / "__init__.py")
    environment = environments.of(pair)
    argv = (str(environment.python), "-I", "-B", "-c", _LOAD, module.name, loader)
    env = process.base_environment(machine.environ) | dict(environment.variables)
    outcome = machine.runner(process.Command(argv, unpacked, env, timeout=300))
    if NO_DRIVER in outcome.output:
        return False
    lines = outcome.output.strip().splitlines() or ["it ended and printed nothing"]
    wanted = f"{unpacked / module.folder / pair.folder}/"
    if not outcome.ok or not lines[-1].startswith(wanted):
        told = next((line for line in reversed(lines) if re.match(r"\w*Error\b", line)), lines[-1])
        raise BuildError(f"{module.name} does not load with {pair}", why=told)
    return True
