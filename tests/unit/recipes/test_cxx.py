"""C++ texts of recipes are files with values in them."""

from __future__ import annotations

import pytest

from attnforge.recipes.cxx import cxx


def test_values_go_where_their_names_are() -> None:
    text = cxx("flash_attn/cxx/raise.h", kind="forward", params="P", what='"softcap"', command='"build it"')
    assert 'attnforge::left_out("softcap", "build it");' in text
    assert "$" not in text


def test_a_value_that_is_missing_is_named() -> None:
    with pytest.raises(KeyError, match="what"):
        cxx("flash_attn/cxx/raise.h", kind="forward", params="P", command="")
