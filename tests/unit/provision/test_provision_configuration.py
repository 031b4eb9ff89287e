"""What pip's and uv's configuration say, read as they read it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from attnforge.errors import HostError
from attnforge.provision.configuration import Places, read_settings
from attnforge.provision.indexes import IndexSettings

A, B, C, D = (f"https://{letter}.test/simple" for letter in "abcd")


class Machine:
    """A machine with a home, a system folder and a virtual environment, all empty at first."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.places = Places(etc=root / "etc", prefix=root / "venv")

    def pip(self, where: str, text: str) -> None:
        files = {
            "global": self.places.etc / "pip.conf",
            "xdg": self.places.etc / "xdg" / "pip" / "pip.conf",
            "legacy": self.home / ".pip" / "pip.conf",
            "user": self.home / ".config" / "pip" / "pip.conf",
            "site": self.places.prefix / "pip.conf",
        }
        self.write(files[where], text)

    def uv(self, text: str, system: bool = False) -> None:
        folder = self.places.etc if system else self.home / ".config"
        self.write(folder / "uv" / "uv.toml", text)

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def read(self, **environ: str) -> IndexSettings:
        return read_settings({"HOME": str(self.home), **environ}, self.places)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_configured_leaves_the_tools_their_default(machine: Machine) -> None:
    assert machine.read() == IndexSettings()


ORDER = ["xdg", "global", "legacy", "user", "site"]


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(ORDER)))
def test_each_file_of_pip_overrides_the_one_before(machine: Machine, lower: str, higher: str) -> None:
    machine.pip(lower, f"[global]\nindex-url = {A}\n")
    machine.pip(higher, f"[global]\nindex-url = {B}\n")
    assert machine.read().index_urls == (B,)
    assert not machine.read().keeps_default


def test_pip_environment_overrides_its_files(machine: Machine) -> None:
    machine.pip("site", f"[install]\nindex-url = {A}\nextra-index-url = {B}\n")
    settings = machine.read(PIP_INDEX_URL=C, PIP_EXTRA_INDEX_URL=D)
    assert settings.index_urls == (C, D)


def test_an_empty_variable_says_nothing(machine: Machine) -> None:
    machine.pip("user", f"[global]\nindex-url = {A}\n")
    assert machine.read(PIP_INDEX_URL="").index_urls == (A,)


def test_install_section_counts_more_than_global_of_a_later_file(machine: Machine) -> None:
    machine.pip("global", f"[install]\nindex-url = {A}\n")
    machine.pip("user", f"[global]\nindex-url = {B}\n")
    assert machine.read().index_urls == (A,)


def test_other_commands_sections_do_not_count(machine: Machine) -> None:
    machine.pip("user", f"[search]\nindex-url = {A}\n[list]\nno-index = true\n")
    assert machine.read() == IndexSettings()


def test_a_named_file_replaces_the_users_and_overrides_site(machine: Machine, tmp_path: Path) -> None:
    machine.pip("user", f"[global]\nextra-index-url = {A}\n")
    machine.pip("site", f"[global]\nindex-url = {B}\n")
    machine.write(tmp_path / "named.conf", f"[global]\nindex-url = {C}\n")
    assert machine.read(PIP_CONFIG_FILE=str(tmp_path / "named.conf")).index_urls == (C,)


def test_a_named_file_that_is_not_there_leaves_the_users(machine: Machine, tmp_path: Path) -> None:
    machine.pip("user", f"[global]\nindex-url = {A}\n")
    assert machine.read(PIP_CONFIG_FILE=str(tmp_path / "none.conf")).index_urls == (A,)


def test_dev_null_turns_pips_files_off(machine: Machine) -> None:
    machine.pip("user", f"[global]\nindex-url = {A}\n")
    assert machine.read(PIP_CONFIG_FILE="/dev/null", PIP_CERT="/x.pem") == IndexSettings(cert="/x.pem")


@pytest.mark.parametrize("separator", [" ", "\n    ", "\n\t"])
def test_values_of_several_words_or_lines(machine: Machine, separator: str) -> None:
    machine.pip(
        "user",
        f"[global]\nextra-index-url = {A}{separator}{B}\nfind-links = /one{separator}https://two.test/\n"
        f"trusted-host = a.test{separator}b.test:8443\n",
    )
    settings = machine.read()
    assert settings.index_urls == (A, B)
    assert settings.keeps_default
    assert settings.find_links == ("/one", "https://two.test/")
    assert settings.trusted_hosts == ("a.test", "b.test:8443")


@pytest.mark.parametrize("key", ["index-url", "index_url", "--index-url", "INDEX-URL"])
def test_ways_to_write_a_key(machine: Machine, key: str) -> None:
    machine.pip("user", f"[global]\n{key} = {A}\n")
    assert machine.read().index_urls == (A,)


@pytest.mark.parametrize(("text", "means"), [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False)])
def test_no_index(machine: Machine, text: str, means: bool) -> None:
    machine.pip("user", f"[global]\nextra-index-url = {A}\nfind-links = /w\n")
    settings = machine.read(PIP_NO_INDEX=text)
    assert settings.keeps_default is not means
    assert settings.index_urls == (() if means else (A,))
    assert settings.find_links == ("/w",)


def test_percent_signs_in_urls_stay(machine: Machine) -> None:
    machine.pip("user", "[global]\nindex-url = https://u:p%40ss@a.test/simple\n")
    assert machine.read().index_urls == ("https://u:p%40ss@a.test/simple",)


def test_credentials_are_not_in_the_repr(machine: Machine) -> None:
    settings = machine.read(
        PIP_INDEX_URL="https://user:secret@a.test/simple", PIP_FIND_LINKS="https://u:secret@b.test/"
    )
    assert "secret" in settings.index_urls[0]
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(("text", "seconds"), [("180", 180.0), ("0.1", 1.0), ("soon", 15.0), ("", 15.0)])
def test_time_limit(machine: Machine, text: str, seconds: float) -> None:
    assert machine.read(PIP_DEFAULT_TIMEOUT=text).timeout == seconds


@pytest.mark.parametrize("content", ["index-url = x\n", "[global\n", "[global]\nx\n"])
def test_a_broken_pip_file_is_named(machine: Machine, content: str) -> None:
    machine.pip("user", content)
    with pytest.raises(HostError, match=r"pip\.conf") as caught:
        machine.read()
    assert caught.value.hint


def test_a_broken_uv_file_is_named(machine: Machine) -> None:
    machine.uv("index-url = [")
    with pytest.raises(HostError, match=r"uv\.toml"):
        machine.read()


def test_uv_file(machine: Machine) -> None:
    machine.uv(
        f'allow-insecure-host = ["a.test"]\nfind-links = ["wheels", "https://w.test/"]\n'
        f'[[index]]\nurl = "{A}"\n[[index]]\nurl = "{B}"\ndefault = true\n[[index]]\nurl = "{C}"\nexplicit = true\n'
        f'name = "pytorch"\n[pip]\nextra-index-url = ["{D}"]\n'
    )
    settings = machine.read()
    assert settings.index_urls == (B, A, D)
    assert not settings.keeps_default
    assert settings.find_links == (str(machine.home / ".config" / "uv" / "wheels"), "https://w.test/")
    assert settings.trusted_hosts == ("a.test",)


def test_uvs_user_file_counts_more_than_the_systems(machine: Machine) -> None:
    machine.uv(f'index-url = "{A}"\n', system=True)
    assert machine.read().index_urls == (A,)
    machine.uv(f'index-url = "{B}"\n')
    assert machine.read().index_urls == (B,)


@pytest.mark.parametrize("key", ["no-index = true\n", "[pip]\nno-index = true\n"])
def test_no_index_of_uv(machine: Machine, key: str) -> None:
    machine.uv(key)
    assert not machine.read(PIP_INDEX_URL=A).index_urls


def test_uv_config_file_and_uv_no_config(machine: Machine, tmp_path: Path) -> None:
    machine.uv(f'index-url = "{A}"\n')
    machine.write(tmp_path / "other.toml", f'index-url = "{B}"\n')
    assert machine.read(UV_CONFIG_FILE=str(tmp_path / "other.toml")).index_urls == (B,)
    assert machine.read(UV_NO_CONFIG="1") == IndexSettings()


DEFAULTS: list[Callable[[Machine], dict[str, str]]] = [
    lambda machine: {"UV_DEFAULT_INDEX": A},
    lambda machine: {"PIP_INDEX_URL": B},
    lambda machine: machine.uv(f'index-url = "{C}"\n') or {},  # type: ignore[func-returns-value]
    lambda machine: machine.pip("user", f"[global]\nindex-url = {D}\n") or {},  # type: ignore[func-returns-value]
]


@pytest.mark.parametrize("first", range(4))
def test_which_default_index_wins(machine: Machine, first: int) -> None:
    environ: dict[str, str] = {}
    for setting in DEFAULTS[first:]:
        environ |= setting(machine)
    assert machine.read(**environ).index_urls == ((A, B, C, D)[first],)


def test_uv_variables(machine: Machine) -> None:
    settings = machine.read(
        UV_INDEX=f"{A} inner={B}",
        UV_EXTRA_INDEX_URL=C,
        UV_INDEX_INNER_USERNAME="me",
        UV_INDEX_INNER_PASSWORD="a@b",
        UV_FIND_LINKS="/with space,https://w.test/",
        UV_INSECURE_HOST="a.test b.test",
    )
    assert settings.index_urls == (A, "https://me:a%40b@b.test/simple", C)
    assert settings.find_links == ("/with space", "https://w.test/")
    assert settings.trusted_hosts == ("a.test", "b.test")


def test_an_index_of_both_is_asked_once(machine: Machine) -> None:
    machine.pip("user", f"[global]\nextra-index-url = {A}\n")
    assert machine.read(UV_INDEX=A).index_urls == (A,)


def test_pips_way_to_choose_between_indexes_unless_uv_was_told(machine: Machine) -> None:
    machine.pip("user", f"[global]\nextra-index-url = {A}\n")
    assert machine.read().strategy == "unsafe-best-match"
    assert machine.read(UV_INDEX_STRATEGY="first-index").strategy == ""
    machine.uv('index-strategy = "first-index"\n')
    assert machine.read().strategy == ""


def test_relative_folders_become_absolute(machine: Machine) -> None:
    assert machine.read(PIP_FIND_LINKS="wheels").find_links == (str(Path.cwd() / "wheels"),)
