from __future__ import annotations

import shlex
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.graph.commands import arguments, language
from attnforge.compile.graph.ninja import parse
from attnforge.errors import BuildError
from attnforge.model.graph import Language

# Written after PyTorch's and FlashAttention 3's writers: their rules, names and layout.
TORCH = """\
ninja_required_version = 1.3
cxx = c++
nvcc = /usr/local/cuda/bin/nvcc

cflags = -I'/with space' -fPIC
post_cflags = -O3 -DNAME='"quoted"'
cuda_cflags = -I/include
cuda_post_cflags = --compiler-options ''"'"'-fPIC'"'"'' -gencode arch=compute_90,code=sm_90
cuda_post_cflags_sm80 = -gencode arch=compute_80,code=sm_80
cuda_dlink_post_cflags = -dlink
ldflags =

rule compile
  command = $cxx -MMD -MF $out.d $cflags -c $in -o $out $post_cflags
  depfile = $out.d
  deps = gcc

rule cuda_compile
  depfile = $out.d
  deps = gcc
  command = $nvcc -MD -MF $out.d $cuda_cflags -c $in -o $out $cuda_post_cflags

rule cuda_compile_sm80
  depfile = $out.d
  deps = gcc
  command = $nvcc -MD -MF $out.d $cuda_cflags -c $in -o $out $cuda_post_cflags_sm80

rule cuda_devlink
  command = $nvcc $in -o $out $cuda_dlink_post_cflags



build /b/api.o: compile /s/api.cpp
build /b/with$ space.o: cuda_compile /s/with$ space.cu
build /b/k_sm80.o: cuda_compile_sm80 /s/../s/k_sm80.cu

build /b/dlink.o: cuda_devlink /b/api.o /b/with$ space.o /b/k_sm80.o
"""


def test_what_pytorch_writes() -> None:
    api, spaced, old, link = parse(TORCH, "/b").units
    assert shlex.join(api.argv) == (
        "c++ -MMD -MF /b/api.o.d '-I/with space' -fPIC -c /s/api.cpp -o /b/api.o -O3 '-DNAME=\"quoted\"'"
    )
    assert (api.output, api.sources, api.depfile, api.cwd) == ("/b/api.o", ("/s/api.cpp",), "/b/api.o.d", "/b")
    assert spaced.output == "/b/with space.o" and spaced.depfile == "/b/with space.o.d"
    assert spaced.argv[:4] == ("/usr/local/cuda/bin/nvcc", "-MD", "-MF", "/b/with space.o.d")
    assert "'-fPIC'" in spaced.argv
    assert old.sources == ("/s/k_sm80.cu",) and old.argv[-1] == "arch=compute_80,code=sm_80"
    assert link.needs == ("/b/api.o", "/b/with space.o", "/b/k_sm80.o")
    assert [unit.language.value for unit in (api, spaced, old, link)] == ["cxx", "cuda", "cuda", "device-link"]


def commands(text: str, read: Mapping[str, str] | None = None) -> list[str]:
    return [shlex.join(unit.argv) for unit in parse(text, "/b", read.__getitem__ if read else None).units]


RULE = "rule r\n  command = run $in $out $flags\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("x = 1\nrule r\n  command = $x\nbuild o: r\nx = 2\n", ["2"], id="a rule sees the file's last"),
        pytest.param("x = 1\ny = $x\nx = 2\nrule r\n  command = $y\nbuild o: r\n", ["1"], id="a variable is read once"),
        pytest.param(RULE + "flags = f\nbuild o: r i\n  flags = g$flags\n", ["run i o gf"], id="the edge comes first"),
        pytest.param(RULE + "build o: r i\n  x = 1\n", ["run i o"], id="what is unset is empty"),
        pytest.param(RULE + "build $x: r i$x\n  x = a\n", ["run ia a"], id="paths see the edge's variables"),
        pytest.param(RULE + "build o: r a $\n   b $\n\n", ["run a b o"], id="continuation"),
        pytest.param(RULE + "# build p: r $\nbuild o: r i\n  # x\n", ["run i o"], id="comments"),
        pytest.param(RULE + "build o: r i\n  flags = a#b\n", ["run i o 'a#b'"], id="no comment inside a value"),
        pytest.param(RULE + "build o$:$$: r i$ j\n", ["run 'i j' 'o:$'"], id="escapes are quoted again"),
        pytest.param("rule r\n  command = a $$HOME\nbuild o: r\n", ["/bin/sh -c 'a $HOME'"], id="$$ is for the shell"),
        pytest.param("rule r\n  command = c ${in}x $in.y\nbuild o: r i\n", ["c ix i.y"], id="braces and dots"),
        pytest.param("rule r\n  command = c $a-b\na-b = 1\nbuild o: r i\n", ["c 1"], id="a dash is part of a name"),
        pytest.param(RULE + "build o | p: r i | j || k\n", ["run i o"], id="implicit and order-only"),
        pytest.param(RULE.replace("\n", "\r\n") + "build o: r i\r\n", ["run i o"], id="CRLF"),
        pytest.param(
            RULE + "build a: r i\nbuild b: r i\nbuild c: r b\ndefault c\n", ["run i b", "run b c"], id="default"
        ),
        pytest.param(RULE + "build all: phony a\nbuild a: r i\nbuild b: r i\ndefault all\n", ["run i a"], id="phony"),
        pytest.param("rule r\n  command = c $d\n  depfile = $out.d\n  description = $d\nbuild o: r\n", ["c"], id="d"),
        pytest.param("rule r\n  command = c $depfile\n  depfile = $out.d\nbuild o: r\n", ["c o.d"], id="rule variable"),
    ],
)
def test_syntax(text: str, expected: list[str]) -> None:
    assert commands(text) == expected


def test_included_files_share_variables_and_subninjas_do_not() -> None:
    files = {"/b/rules.ninja": RULE, "/sub.ninja": "flags = s\nbuild p: r i\n"}
    text = "include rules.ninja\nflags = f\nsubninja ../sub.ninja\nbuild o: r i\n"
    assert commands(text, files) == ["run i p s", "run i o f"]


def test_needs_go_through_phony_and_implicit_outputs() -> None:
    text = RULE + "build a | h: r i\nbuild all: phony a\nbuild b: r all\nbuild c: r i | h\nbuild d: r i || b\n"
    needs = {unit.output: unit.needs for unit in parse(text, "/b").units}
    assert needs == {"/b/a": (), "/b/b": ("/b/a",), "/b/c": ("/b/a",), "/b/d": ("/b/b",)}


def test_targets_choose_what_they_need() -> None:
    text = RULE + "build a: r i\nbuild b: r a\nbuild c: r i\n"
    assert [unit.output for unit in parse(text, "/b", targets=["b"]).units] == ["/b/a", "/b/b"]
    with pytest.raises(BuildError, match="'nothing'"):
        parse(text, "/b", targets=["nothing"])


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = $\x01\n", 1, "bad \\$-escape"),
        ("\n\nbuild o: r i\n", 3, "unknown rule 'r'"),
        (RULE + "build o: r i\n\tflags = 1\n", 4, "tabs"),
        (RULE + "build o r i\n", 3, "expected ':'"),
        (RULE + "build o: \n", 3, "expected a rule"),
        (RULE + "build : r i\n", 3, "needs an output"),
        (RULE + "build o: r i\nbuild ./o: r j\n", 4, "two build statements make 'o'"),
        (RULE + "build a: r b\nbuild b: r a\n", None, "dependency cycle"),
        (RULE + RULE, 3, "duplicate rule"),
        ("rule r\n  command = $depfile\n  depfile = $command\nbuild o: r\n", 4, "cycle in rule variables"),
        ("rule r\n  description = x\n", 1, "no command"),
        ("rule r\n  command = x\n  colour = x\n", 3, "'colour'"),
        ("rule r\n  command = x\n  dyndep = x\n", 3, "'dyndep' is not supported"),
        (RULE + "build o: r i\n  dyndep = x\n", 4, "'dyndep' is not supported"),
        (RULE + "build o: r i |@ v\n", 3, "'\\|@' is not supported"),
        (RULE + "build o: r i || a | b\n", 3, "'\\|' is not supported"),
        (RULE + "build o: r i : j\n", 3, "unexpected ':'"),
        ("include other.ninja\n", 1, "no other file"),
        ("  x = 1\n", 1, "unexpected indent"),
        ("x = 1\n  y = 2\n", 2, "unexpected indent"),
        ("ninja_required_version = 1.14\n", 1, "requires ninja 1.14"),
        ("rule r\n  command = $nothing\nbuild o: r\n", 3, "command is empty"),
        ("nonsense\n", 1, "'nonsense' is not supported"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text: str, line: int | None, says: str) -> None:
    with pytest.raises(BuildError, match=says) as caught:
        parse(text, "/b")
    assert line is None or f"line {line}:" in caught.value.what


# Written after CMake's generator: scopes in included files, directories that nothing makes, links through a shell.
CMAKE = """\
pool link
  depth = 1

rule CUDA_COMPILER__x
  depfile = $DEP_FILE
  deps = gcc
  command = nvcc $DEFINES $FLAGS -MD -MT $out -MF $DEP_FILE -x cu -c $in -o $out

rule LINKER__x
  command = $PRE_LINK && g++ -shared -o $TARGET_FILE @$RSP_FILE && $POST_BUILD
  rspfile = $RSP_FILE
  rspfile_content = $in $LINK_LIBRARIES
  restat = $RESTAT

rule RERUN_CMAKE
  command = cmake --regenerate-during-build
  generator = 1

build order_x: phony || CMakeFiles/x.dir
build CMakeFiles/x.dir/k.cu.o: CUDA_COMPILER__x /s/k.cu || order_x
  DEFINES = -Dx_EXPORTS
  DEP_FILE = CMakeFiles/x.dir/k.cu.o.d
  FLAGS = -O3 --generate-code=arch=compute_90,code=[sm_90] -Xcompiler=-fPIC
build x.so: LINKER__x CMakeFiles/x.dir/k.cu.o
  LINK_LIBRARIES = -lcudart_static -l'odd one'
  PRE_LINK = :
  POST_BUILD = :
  TARGET_FILE = x.so
  RSP_FILE = CMakeFiles/x.rsp
  pool = link
build all: phony x.so
build build.ninja: RERUN_CMAKE | /s/CMakeLists.txt CMakeCache.txt
  pool = console
build /s/CMakeLists.txt CMakeCache.txt: phony
default all
"""


def test_what_cmake_writes() -> None:
    graph = parse(CMAKE, "/b")
    kernel, link = graph.units
    assert kernel.language is Language.CUDA and kernel.depfile == "/b/CMakeFiles/x.dir/k.cu.o.d"
    assert kernel.argv[:4] == ("nvcc", "-Dx_EXPORTS", "-O3", "--generate-code=arch=compute_90,code=[sm_90]")
    assert link.language is Language.OTHER and link.needs == (kernel.output,) and link.name == "x.so"
    assert link.argv == ("/bin/sh", "-c", ": && g++ -shared -o x.so @CMakeFiles/x.rsp && :")
    (response,) = graph.files
    assert response.path == "/b/CMakeFiles/x.rsp"
    assert response.text == "CMakeFiles/x.dir/k.cu.o -lcudart_static -l'odd one'"


def test_a_file_that_includes_itself_is_refused() -> None:
    with pytest.raises(BuildError, match="includes itself"):
        parse("include a\n", "/b", lambda path: "include a\n")


def test_a_file_that_cannot_be_read_is_refused() -> None:
    def read(path: str) -> str:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(BuildError, match="line 1: include '/b/a': No such file"):
        parse("include a\n", "/b", read)


@pytest.mark.parametrize(
    "command",
    [
        "a && b", "a ; b", "a | b", "a > b", "a < b", "a `b`", "a $(b)", "a $b", 'a "$b"', 'a "`b`"', "a *.o", "a ?",
        "a ~/b", "a # b", "A=1 a", "(a)", "a &", "! a", "{ a; }", "a 'b", 'a "b', "a \\",
    ],
)  # fmt: skip
def test_what_needs_a_shell_gets_one(command: str) -> None:
    assert arguments(command, pytest.fail) == ("/bin/sh", "-c", command)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("c++ 'a b' \"c d\" e\\ f", ("c++", "a b", "c d", "e f")),
        ("c++ '&&' \";|\" \\>", ("c++", "&&", ";|", ">")),
        ("nvcc -gencode=arch=sm_80,code=[sm_80]", ("nvcc", "-gencode=arch=sm_80,code=[sm_80]")),
        ("c++ -DA=b#c~d!e{f", ("c++", "-DA=b#c~d!e{f")),
        ("  c++   -c  ", ("c++", "-c")),
    ],
)  # fmt: skip
def test_what_needs_no_shell_is_split(command: str, expected: tuple[str, ...]) -> None:
    assert arguments(command, pytest.fail) == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_quoted_words_come_back(words: list[str]) -> None:
    argv = ("program", *words)
    assert arguments(shlex.join(argv), pytest.fail) == argv


@pytest.mark.parametrize(
    ("argv", "sources", "expected"),
    [
        ("nvcc -c /a.cu -o /a.o", ("/a.cu",), Language.CUDA),
        ("sccache nvcc -c /a.cu -o /a.o", ("/a.cu",), Language.CUDA),
        ("my-nvcc-wrapper -c /a.cu", ("/a.cu",), Language.CUDA),
        ("c++ -c /a.cpp -o /a.o", ("/a.cpp",), Language.CXX),
        ("nvcc -c /a.cpp -o /a.o", ("/a.cpp",), Language.CXX),
        ("gcc -c /a.c", ("/a.c",), Language.CXX),
        ("nvcc /a.o -o /d.o -dlink", ("/a.o",), Language.DEVICE_LINK),
        ("c++ /a.o -shared -o /a.so", ("/a.o",), Language.OTHER),
        ("python gen.py", (), Language.OTHER),
    ],
)
def test_languages(argv: str, sources: tuple[str, ...], expected: Language) -> None:
    assert language(tuple(argv.split()), sources) is expected


def test_a_command_with_two_outputs_is_no_compile() -> None:
    rule = "rule r\n  command = c++ -c $in -o $out\n"
    units = parse(rule + "build a | b: r i.cpp\nbuild c: r i.cpp\n", "/b").units
    assert [unit.language for unit in units] == [Language.OTHER, Language.CXX]


def escaped(path: str) -> str:
    return "".join("$" + letter if letter in "$ :" else letter for letter in path)


# A path as a build may have it: no slash (a component is enough), nothing that a line can't hold or that "." reduces.
_components = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/|\u2028\u2029\x85"), min_size=1
).filter(lambda name: name not in (".", ".."))
_absolute = _components.map(lambda name: f"/x/{name}")


@given(
    st.lists(_absolute, min_size=1, max_size=4, unique=True),
    st.lists(_absolute, max_size=4),
    st.lists(_absolute, max_size=2),
)
def test_what_is_written_with_escapes_is_read_back(outputs: list[str], inputs: list[str], order: list[str]) -> None:
    lines = [RULE]
    for output in outputs:
        line = f"build {escaped(output)}: r {' '.join(map(escaped, inputs))}"
        lines.append(line + (f" || {' '.join(map(escaped, order))}" if order else ""))
    try:
        units = parse("\n".join(lines) + "\n", "/b").units
    except BuildError as error:
        assert "cycle" in error.what and set(outputs) & {*inputs, *order}
        return
    assert [unit.output for unit in units] == outputs
    for unit in units:
        assert unit.sources == tuple(inputs)
        assert unit.argv == ("run", *inputs, unit.output)
        assert set(unit.needs) == set(outputs) & {*inputs, *order}


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "/b")
    except BuildError:
        return
