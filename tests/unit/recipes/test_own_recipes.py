"""A recipe that a user wrote: what is wrong in it is told by file, key and the nearest key that there is."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnforge.errors import RequestError
from attnforge.model.recipe import SCHEMA, Recipe
from attnforge.recipes.catalogue import adapters, recipes
from attnforge.recipes.own import read_recipe

DIGEST = "0123456789abcdef" * 4

GOOD = f"""\
schema = 1
name = "my-extension"
title = "Mine"
summary = "one line"
modules = ["my_extension._C"]
default_version = "1.0"
requirements = ["setuptools==80.9.0", "wheel==0.45.1"]

[settings]
MY_FORCE_BUILD = "TRUE"

[[releases]]
versions = ">=1.0,<2"
architectures = ["80", "90a"]
cuda = ">=12.3"
source = "setup.py"

[releases.sha256]
"1.0" = "{DIGEST}"

[[releases]]
versions = ">=2"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "my-recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> RequestError:
    path = written(folder, text)
    with pytest.raises(RequestError) as caught:
        read_recipe(path)
    assert caught.value.what.startswith(str(path))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD))
    assert recipe == Recipe.model_validate(tomllib.loads(GOOD))
    release = recipe.release("1.0")
    assert release is not None
    assert release.sha256 == {"1.0": DIGEST}


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_a_bundled_recipe_can_be_copied_and_changed(tmp_path: Path, recipe: Recipe) -> None:
    import attnforge

    folder = Path(attnforge.__file__).parent / "recipes"
    (own,) = (f for f in folder.glob("*/recipe.toml") if tomllib.loads(f.read_text("utf-8"))["name"] == recipe.name)
    assert read_recipe(own) == recipe


@pytest.mark.parametrize(
    ("old", "new", "said", "hint"),
    [
        # unknown keys, and the nearest there
        ("modules =", "module =", "module: there is no such key", "'modules'"),
        ("[settings]", "[setings]", "setings: there is no such key", "'settings'"),
        ("architectures =", "archs =", "releases[0].archs: there is no such key", "'architectures'"),
        ("modules =", "zebra =", "zebra: there is no such key", "schema, name, title"),
        ('cuda = ">=12.3"', 'cudas = ">=12.3"', "releases[0].cudas: there is no such key", "'cuda'"),
        # wrong types
        ('name = "my-extension"', "name = 7", "name: has to be a valid string, and is 7", ""),
        ("schema = 1", 'schema = "one"', "schema: has to be 1, and is 'one'", ""),
        ("schema = 1", "schema = 0", "schema: has to be 1, and is 0", ""),
        (
            'architectures = ["80", "90a"]',
            'architectures = "80"',
            "releases[0].architectures: has to be an array",
            "",
        ),
        ('MY_FORCE_BUILD = "TRUE"', "MY_FORCE_BUILD = true", "settings.MY_FORCE_BUILD: has to be a valid string", ""),
        ('title = "Mine"\n', "", "title: is missing", ""),
        # texts that are not what they have to be
        ('versions = ">=1.0,<2"', 'versions = "1.0"', "releases[0].versions: Invalid specifier: '1.0'", ""),
        ('cuda = ">=12.3"', 'cuda = "twelve"', "releases[0].cuda: Invalid specifier", ""),
        ('"90a"', '"sm_90a"', "releases[0].architectures[1]: 'sm_90a' is written '90a' here", ""),
        ('"90a"', '"hopper"', "releases[0].architectures[1]: 'hopper' is not a compute capability", ""),
        (DIGEST, DIGEST[:-1], 'releases[0].sha256."1.0": ', ""),
        (DIGEST, DIGEST.upper(), "is no SHA-256: 64 hexadecimal digits", ""),
        (DIGEST, "z" * 64, "is no SHA-256", ""),
        ('"1.0" =', '"one" =', "releases[0].sha256.one: Invalid version: 'one'", ""),
        ("my-extension", "My_Extension", "write 'my-extension'", ""),
        ("my_extension._C", "my-extension._C", "modules[0]: 'my-extension._C' is no name that Python imports", ""),
        ("wheel==0.45.1", "wheel==", "requirements[1]: ", ""),
        # each right, and wrong together
        ("wheel==0.45.1", "wheel>=0.45", "requirements[1]: 'wheel>=0.45' is not pinned", "wheel==VERSION"),
        ("wheel==0.45.1", "wheel==0.*", "is not pinned", "wheel==VERSION"),
        ("wheel==0.45.1", "wheel", "is not pinned", "wheel==VERSION"),
        ('default_version = "1.0"', 'default_version = "0.9"', "default_version: no release covers 0.9", "widen"),
        ('"1.0" =', '"2.1" =', 'releases[0].sha256."2.1": 2.1 is not one of this release\'s versions', "facts"),
        ('"Mine"\n', '"Mine"\nsources = ["git"]\n', "sources: git is named, and no repository", "[git]"),
        ('"Mine"\n', '"Mine"\nsources = ["carrier"]\n', "sources: carrier is named, and no archive", "carriers"),
        ('"Mine"\n', '"Mine"\nsources = []\n', "sources: is empty", "leave it out"),
        ('cuda = ">=12.3"', 'sources = ["git"]', "releases[0].sources: git is named, and no repository", "[git]"),
        (
            'cuda = ">=12.3"',
            'requirements = ["wheel"]',
            "releases[0].requirements[0]: 'wheel' is not pinned",
            "VERSION",
        ),
        ('cuda = ">=12.3"', 'settings = {"A-B" = "1"}', "releases[0].settings.A-B: can't be an environment", ""),
        ("MY_FORCE_BUILD =", '"MY-FORCE BUILD" =', 'settings."MY-FORCE BUILD": can\'t be an environment variable', ""),
    ],
)
def test_what_is_wrong_is_told_by_its_key(tmp_path: Path, old: str, new: str, said: str, hint: str) -> None:
    assert old in GOOD
    error = refusal(tmp_path, GOOD.replace(old, new, 1))
    assert said in error.what
    assert hint in error.hint


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("fwd_(hdim", "is no regular expression"),
        (r"fwd_(?P<kind>\w+)_(?P<dtype>\w+)", "lacks the group (?P<head_dim>…)"),
    ],
)
def test_a_wrong_pattern_is_told(tmp_path: Path, pattern: str, said: str) -> None:
    text = GOOD + f"[kernels]\npattern = '{pattern}'\nkinds = {{fwd = \"forward\"}}\ndtypes = []\n"
    error = refusal(tmp_path, text)
    assert "kernels.pattern: " in error.what
    assert said in error.what


def test_a_table_that_is_none_is_told(tmp_path: Path) -> None:
    assert "kernels: has to be a table, and is 3" in refusal(tmp_path, "kernels = 3\n" + GOOD).what


def test_a_step_that_there_is_not_is_told(tmp_path: Path) -> None:
    text = GOOD + '[[costs]]\nkind = "x"\nsource = "y"\nbytes = {}\n[costs.seconds]\ncic = {shared = 1}\n'
    assert "costs[0].seconds.cic: has to be 'preprocess', 'cudafe++', 'cicc'" in refusal(tmp_path, text).what


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("modules", "modulez").replace("[settings]", "[settingz]").replace('">=2"', '"2"')
    error = refusal(tmp_path, text)
    assert "modulez" in error.what + error.why
    assert "settingz" in error.what + error.why
    assert "releases[1].versions" in error.what + error.why


def test_a_schema_of_the_future_is_told_as_that(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD.replace("schema = 1", f'schema = {SCHEMA + 1}\nflavour = "new"', 1))
    assert f"schema: {SCHEMA + 1} is of a later attnforge" in error.what
    assert "newer attnforge" in error.hint


@pytest.mark.parametrize("adapter", ["mine", "os", "../evil", "flash_attn.adapter", "flash-attn"])
def test_a_recipe_brings_no_code(tmp_path: Path, adapter: str) -> None:
    error = refusal(tmp_path, GOOD.replace("[settings]", f'adapter = "{adapter}"\n[settings]'))
    assert f"adapter: attnforge has no adapter {adapter!r}" in error.what
    assert "flash_attn" in error.hint


def test_it_may_name_an_adapter_of_attnforges(tmp_path: Path) -> None:
    assert "flash_attn" in adapters()
    text = GOOD.replace("[settings]", 'adapter = "flash_attn"\n[settings]')
    assert read_recipe(written(tmp_path, text)).adapter == "flash_attn"


def test_nothing_is_left_out_without_an_adapter(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD + '[features.dropout]\nsummary = "dropout"\nmacro = "NO_DROPOUT"\n')
    assert "features: what can be left out needs an adapter" in error.what


@pytest.mark.parametrize(
    ("text", "said"),
    [("schema = ", "is no TOML"), ("[[releases]\n", "is no TOML"), ("", "name: is missing")],
)
def test_what_is_no_recipe_at_all(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text).what


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(RequestError, match="can't be read"):
        read_recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'title = "K\xe4te"')
    with pytest.raises(RequestError, match="can't be read"):
        read_recipe(tmp_path / "latin.toml")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(["", "1.0", "80", ">=1", "x y", "(", DIGEST])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["1.0", "versions", "sha256", "kinds", "cicc", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([field.alias or name for name, field in Recipe.model_fields.items()]), value=VALUES)
def test_any_value_of_any_key_is_read_or_refused_by_its_key(tmp_path: Path, key: str, value: object) -> None:
    from unittest.mock import patch

    table = {**tomllib.loads(GOOD), key: value}
    with patch("attnforge.recipes.own._table", return_value=table):
        try:
            read_recipe(tmp_path / "my-recipe.toml")
        except RequestError as error:
            assert str(tmp_path) in error.what
            assert key in error.what + error.why
