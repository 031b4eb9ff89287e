"""The linker's input: names, scripts and command lines. Pure.

The functions that cross from a module to its library have names that only this library has (upstream's, and the
library's digest after a dot). Symbol versions would not do: where the other definition comes from an object without
versions, which a plain module of the same package is, the dynamic linker takes it for a versioned reference
(glibc, elf/dl-lookup.c, check_match). Nothing else is exported, and nothing that is defined on a side can be bound to
from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DIGEST_LENGTH = 16

# Brought by the compiler's own command.
_IMPLIED = frozenset({"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"})

_STUBBED = {"libcuda.so.1": "-lcuda"}  # linked against a stub, whose file name is not its soname

# No build id but from the contents, no path of this machine, nothing for a debugger: each pair has such a module.
_COMMON = ("-shared", "-Wl,-Bsymbolic", "-Wl,--build-id=sha1", "-Wl,-s", "-Wl,--hash-style=gnu", "-Wl,-O1")


def crossing_name(symbol: str, digest: str) -> str:
    """Return the name under which a function crosses: upstream's own, made unique to this library."""
    return f"{symbol}.{digest}"


def library_name(module: str, digest: str) -> str:
    """Return the file name and soname of a module's library: ``libflash_attn_2_cuda-0123456789abcdef.so``."""
    return f"lib{module.rpartition('.')[2]}-{digest}.so"


def renames(symbols: Iterable[str], digest: str) -> str:
    """Return the text that ``objcopy --redefine-syms`` reads."""
    return "".join(f"{symbol} {crossing_name(symbol, digest)}\n" for symbol in symbols)


def exports(symbols: Iterable[str]) -> str:
    """Return the linker's version script that exports these symbols and no other."""
    named = "".join(f'    "{symbol}";\n' for symbol in symbols)
    return f"{{\n{'  global:' if named else ''}\n{named}  local: *;\n}};\n"


def library_command(
    compiler: str, objects: Sequence[Path], script: Path, name: str, search: Sequence[Path], driver: Path
) -> tuple[str, ...]:
    """Return the command that links the kernels library ``name`` in the working folder.

    Every symbol has to be there: the library needs the C and C++ libraries and, where kernels' launchers call the
    driver, that. The CUDA runtime is inside, since no PyTorch is there to bring one.
    """
    return (
        compiler,
        *_COMMON,
        "-Wl,-z,defs",
        f"-Wl,-soname,{name}",
        f"-Wl,--version-script={script}",
        "-o",
        name,
        *map(str, objects),
        "-Wl,--as-needed",
        *(f"-L{folder}" for folder in (*search, driver)),
        "-l:libcudart_static.a",
        "-lcuda",
        "-lpthread",
        "-ldl",
        "-lrt",
    )


def module_command(
    compiler: str,
    objects: Sequence[Path],
    script: Path,
    name: str,
    needed: Sequence[str],
    rpath: Sequence[str],
    search: Sequence[Path],
    library: Path | None,
) -> tuple[str, ...]:
    """Return the command that links a pair's module ``name`` in the working folder.

    ``needed`` are the libraries that upstream's own module needs, ``rpath`` where the loader looks for libraries, and
    ``library`` the kernels library. Of ``needed`` the module gets those that its objects want: upstream's own module of
    the first pair has kernels besides, and what these want must not be what tells that pair's module from another's.
    """
    named = [_STUBBED.get(one, f"-l:{one}") for one in needed if one not in _IMPLIED]
    return (
        compiler,
        *_COMMON,
        f"-Wl,--version-script={script}",
        *(["-Wl,--enable-new-dtags", f"-Wl,-rpath,{':'.join(rpath)}"] if rpath else []),
        "-o",
        name,
        *map(str, objects),
        *(["-Wl,--no-as-needed", str(library)] if library else []),
        "-Wl,--as-needed",
        *(f"-L{folder}" for folder in search),
        *named,
    )


def moved_rpath(rpath: Sequence[str], shared: bool) -> tuple[str, ...]:
    """Return a module's search path from its place in a universal wheel: two folders below upstream's place.

    A folder of this machine (some Pythons' own link flags name where they are installed) is on no other one.
    """
    moved = [folder.replace("$ORIGIN", "$ORIGIN/../..", 1) for folder in rpath if folder.startswith("$ORIGIN")]
    return (*(["$ORIGIN/.."] if shared else []), *moved)
