"""Holds memory for some time, then writes a file: ``python hold.py BYTES SECONDS FILE``. A stand-in for a compiler.

BYTES is the resident memory of the whole process, as /proc says it; what the interpreter takes is part of it. The
process calls itself ``hold`` in /proc. Standard library only, so that it starts in a few milliseconds.
"""

import os
import sys
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the bytes that this process holds now: field 2 of /proc/self/statm (proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes longer to import
        return int(file.read().split()[1]) * PAGE


def main(arguments: list[str]) -> int:
    """Run as a program."""
    began = time.monotonic()
    with open("/proc/self/comm", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("hold")
    held = bytearray(max(int(arguments[0]) - resident(), 0))
    for page in range(0, len(held), PAGE):
        held[page] = 1
    time.sleep(max(float(arguments[1]) - (time.monotonic() - began), 0.0))
    with open(arguments[2], "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(len(held)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
