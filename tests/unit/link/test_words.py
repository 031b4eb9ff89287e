"""Names, scripts and commands of the linker."""

from __future__ import annotations

from pathlib import Path

from attnforge.link.words import (
    crossing_name,
    exports,
    library_command,
    library_name,
    module_command,
    moved_rpath,
    renames,
)

DIGEST = "0123456789abcdef"


def test_what_crosses_has_a_name_that_only_one_library_has() -> None:
    assert crossing_name("_Z3runv", DIGEST) == "_Z3runv.0123456789abcdef"
    assert renames(["_Z3runv", "_Z4stopv"], "ab") == "_Z3runv _Z3runv.ab\n_Z4stopv _Z4stopv.ab\n"


def test_the_library_is_named_after_the_leaf_of_its_module() -> None:
    assert library_name("sageattention._fused", DIGEST) == "lib_fused-0123456789abcdef.so"


def test_a_script_exports_what_is_named_and_nothing_else() -> None:
    assert exports(["PyInit_m"]) == '{\n  global:\n    "PyInit_m";\n  local: *;\n};\n'
    assert "global" not in exports([])


def test_the_library_has_the_runtime_inside_and_leaves_nothing_open() -> None:
    command = library_command(
        "/usr/bin/g++", [Path("0.o")], Path("exports"), "libm-ab.so", [Path("/cuda/lib64")], Path("/d")
    )
    assert "-l:libcudart_static.a" in command
    assert "-Wl,-z,defs" in command and "-Wl,-soname,libm-ab.so" in command
    assert command.index("0.o") < command.index("-Wl,--as-needed") < command.index("-l:libcudart_static.a")
    assert not any("torch" in word or "python" in word for word in command)


def test_a_module_needs_its_library_first_and_then_what_upstreams_needs() -> None:
    needed = ("libc10.so", "libcudart.so.13", "libcuda.so.1", "libstdc++.so.6", "libc.so.6", "libpthread.so.0")
    command = module_command(
        "g++", [Path("0.o")], Path("e"), "m.so", needed, ["$ORIGIN/.."], [Path("/t")], Path("/l.so")
    )
    named = [word for word in command if word.startswith("-l") or word == "/l.so"]
    assert named == ["/l.so", "-l:libc10.so", "-l:libcudart.so.13", "-lcuda", "-l:libpthread.so.0"]
    assert "-Wl,-rpath,$ORIGIN/.." in command and "-Wl,--enable-new-dtags" in command
    # The library in any case, of the others what is used: upstream's own of the first pair needs what kernels do too.
    assert command.index("/l.so") < command.index("-Wl,--as-needed") < command.index("-l:libc10.so")


def test_a_whole_module_has_neither_library_nor_path() -> None:
    command = module_command("g++", [Path("0.o")], Path("e"), "m.so", ("libc10.so",), (), (), None)
    assert not any("rpath" in word for word in command)


def test_upstreams_own_search_path_is_kept_from_two_folders_below_and_this_machines_is_not() -> None:
    found = moved_rpath(("$ORIGIN/../torch/lib", "/opt/python/lib"), shared=True)
    assert found == ("$ORIGIN/..", "$ORIGIN/../../../torch/lib")
    assert moved_rpath((), shared=False) == ()
