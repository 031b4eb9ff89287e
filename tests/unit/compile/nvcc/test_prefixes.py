from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.nvcc import prefixes
from attnforge.compile.nvcc.prefixes import Prefixes

PREFIXES = Prefixes(
    {"/w/src": "source", "/w/src/gen": "generated", "/w/env/site-packages": "site-packages/", "/c": "cuda"}
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/w/src/a.cu", "source/a.cu"),
        ("/w/src", "source"),
        ("/w/src/gen/a.h", "generated/a.h"),
        ("/w/src/generic/a.h", "source/generic/a.h"),
        ("/c/bin/../targets/include/x.h", "cuda/targets/include/x.h"),
        ("/c//bin/./x.h", "cuda/bin/x.h"),
        ("/w/src/../env/site-packages/torch", "site-packages/torch"),
        ("/usr/include/../x.h", "/usr/include/../x.h"),
        ("/w/srcs/a.cu", "/w/srcs/a.cu"),
        ("src/a.cu", "src/a.cu"),
        ("", ""),
    ],
)
def test_paths_have_stable_names(path: str, name: str) -> None:
    assert PREFIXES.name(path) == name


@pytest.mark.parametrize("path", ["/w/src/a.cu", "/w/src/gen/a.h", "/w/env/site-packages/t/x.h", "/c/x", "/usr/x.h"])
def test_names_lead_back(path: str) -> None:
    assert PREFIXES.path(PREFIXES.name(path)) == path


def test_a_name_of_two_folders_leads_to_the_first() -> None:
    prefixes = Prefixes({"/usr/local/cuda": "cuda", "/usr/local/cuda-13.0": "cuda"})
    assert prefixes.name("/usr/local/cuda-13.0/x.h") == prefixes.name("/usr/local/cuda/x.h") == "cuda/x.h"
    assert prefixes.path("cuda/x.h") == "/usr/local/cuda/x.h"


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("/w/src/a.cu", "source/a.cu"),
        ("-I/w/src", "-Isource"),
        ("-isystem/w/src/gen/x", "-isystemgenerated/x"),
        ("--include-path=/w/src", "--include-path=source"),
        ("-ffile-prefix-map=/w/src=source", "-ffile-prefix-map=source=source"),
        ("-Wl,/w/src/a,/c/b", "-Wl,source/a,cuda/b"),
        ('-DX="/w/src/x"', '-DX="source/x"'),
        ("/w/src:/w/src/gen:/usr/include", "source:generated:/usr/include"),
        ("/w/srcs", "/w/srcs"),
        ("/x/w/src/a", "/x/w/src/a"),
        ("-I/x/c/y", "-I/x/c/y"),
        ("-O3", "-O3"),
    ],
)
def test_arguments_are_settled(text: str, settled: str) -> None:
    assert PREFIXES.text(text) == settled


def test_without_folders_nothing_changes() -> None:
    none = Prefixes({})
    assert none.text("-I/w") == "-I/w"
    assert none.name("/w") == none.path("/w") == "/w"
    assert none.settle_markers(b'# 1 "/w/a"\nx') == b'# 1 "/w/a"\nx'


@pytest.mark.parametrize("bad", [{"w": "x"}, {"/w": "/x"}, {"/w": ""}])
def test_what_is_no_map_of_folders_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a map"):
        Prefixes(bad)


@pytest.mark.parametrize(
    ("line", "settled"),
    [
        (rb'# 1 "/w/src/a.cu"', rb'# 1 "source/a.cu"'),
        (rb'# 12 "/c/bin/../x.h" 1 3 4', rb'# 12 "cuda/x.h" 1 3 4'),
        (rb'# 1 "/w/src/a \"b\" \\ c.cu" 2', rb'# 1 "source/a \"b\" \\ c.cu" 2'),
        (rb'# 1 "/usr/include/x.h" 3', rb'# 1 "/usr/include/x.h" 3'),
        (rb'# 1 "/w/src//"', rb'# 1 "source"'),
        (rb'# 0 "<built-in>"', rb'# 0 "<built-in>"'),
        (rb'# 1 "src/../a.cu"', rb'# 1 "src/../a.cu"'),
        (rb'char *x = "# 1 \"/w/src/a.cu\"";', rb'char *x = "# 1 \"/w/src/a.cu\"";'),
        (rb'  # 1 "/w/src/a.cu"', rb'  # 1 "/w/src/a.cu"'),
        (b'# 1 "/w/src/\xc3\xa4\xff.h"', b'# 1 "source/\xc3\xa4\xff.h"'),
    ],
)
def test_line_markers_are_settled(line: bytes, settled: bytes) -> None:
    for before, after in ((b"", b""), (b"int a;\n", b"\nint b;\n"), (b"\n\n", b"\n")):
        assert PREFIXES.settle_markers(before + line + after) == before + settled + after


LINES = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20).map(lambda text: "x" + text),
        st.tuples(st.integers(0, 999), st.sampled_from(["/w/src/a.h", "/c/b.h", "/usr/c.h", "d.h", "<built-in>"])).map(
            lambda pair: f'# {pair[0]} "{pair[1]}" 1'
        ),
    )
)


@given(LINES, st.integers(1, 60))
def test_a_file_is_settled_as_a_text_is(lines: list[str], chunk: int) -> None:
    text = "\n".join(lines).encode()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(prefixes, "_CHUNK_BYTES", chunk):
        path = Path(folder) / "a.ii"
        path.write_bytes(text)
        PREFIXES.settle_file(path)
        assert path.read_bytes() == PREFIXES.settle_markers(text)
        assert list(Path(folder).iterdir()) == [path]


@given(LINES)
def test_only_markers_change_and_once(lines: list[str]) -> None:
    text = "\n".join(lines).encode()
    settled = PREFIXES.settle_markers(text)
    assert PREFIXES.settle_markers(settled) == settled
    pairs = zip(text.split(b"\n"), settled.split(b"\n"), strict=True)
    assert all(old == new or (old.startswith(b"# ") and b'"/' in old) for old, new in pairs)


NAMES = st.lists(st.text("ab./ ", min_size=1, max_size=6), max_size=4).map("/".join)


@given(NAMES)
def test_two_machines_agree(rest: str) -> None:
    here, there = Prefixes({"/here/src": "source"}), Prefixes({"/there/deep/x": "source"})
    # A path that leaves the folder again is another matter.
    if ".." not in rest:
        assert here.name(f"/here/src/{rest}") == there.name(f"/there/deep/x/{rest}")
        marker = '# 1 "{}/{}"\n'
        assert here.settle_markers(marker.format("/here/src", rest).encode()) == there.settle_markers(
            marker.format("/there/deep/x", rest).encode()
        )
