from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.graph.depfile import read_dependencies


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ()),
        ("a.o: a.c b.h\n", ("a.c", "b.h")),
        ("a.o: a.c \\\n b.h \\\r\n c.h\n", ("a.c", "b.h", "c.h")),
        ("a.o : a.c", ("a.c",)),
        ("a.o b.o: a.c", ("a.c",)),
        ("a.o: a.c b.h a.c", ("a.c", "b.h")),
        # -MP
        ("a.o: a.c b.h\nb.h:\n", ("a.c", "b.h")),
        # As g++ 12 writes them.
        (r"x\ y:z.o: a\ b.h c\#d.h e$$f.h g\h.h", ("a b.h", "c#d.h", "e$f.h", r"g\h.h")),
        ("a.o: i\\\\\\ j.h k\\\\#l.h m:n.h t\\\tu.h v\\.h", (r"i\ j.h", r"k\#l.h", "m:n.h", "t\tu.h", r"v\.h")),
        (r"a.o: a\\ b", ("a\\\\", "b")),
        ("no rule", ()),
    ],
)
def test_what_was_read(text: str, read: tuple[str, ...]) -> None:
    assert read_dependencies(text) == read


def written(name: str) -> str:
    """GCC's munge()."""
    spaced = re.sub(r"(\\*)([ \t])", lambda match: match[1] * 2 + "\\" + match[2], name)
    return spaced.replace("$", "$$").replace("#", "\\#")


FILES = st.text(st.sampled_from("ab. \\#$:/\t\u2028é"), min_size=1, max_size=12).filter(
    # What munge() writes for these can't be read back by anyone: the end of a word, or of the rule's target.
    lambda name: not name.endswith(("\\", ":")) and "\\#" not in name and "$#" not in name
)


@given(st.lists(FILES, unique=True, max_size=5), st.sampled_from([" ", " \\\n "]))
def test_all_that_gcc_writes_is_read_back(names: list[str], between: str) -> None:
    assert read_dependencies(f"unit.o:{between}{between.join(map(written, names))}\n") == tuple(names)
