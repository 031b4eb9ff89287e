"""Runs a command and adds a line to a log of what it took: ``python metered.py LOG COMMAND ARG ...``.

It stands before a compiler in build.ninja, for builds that do not say themselves what each unit takes. Standard library
only: it is started once for each unit, and takes about 20 ms of CPU there.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run as a program; the exit code is the command's, as a shell says it."""
    log, argv = arguments[0], arguments[1:]
    began = time.monotonic()
    process = subprocess.Popen(argv)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    line = {
        "argv": argv,
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": time.monotonic() - began,
        # KiB (getrusage(2)), of the largest of its processes.
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
