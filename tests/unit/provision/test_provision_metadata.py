"""Names and versions that files state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.provision.metadata import FILES, static_metadata, torch_bounds

PKG = "Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n\nText\nName: other\n"

CASES = [
    ({"PKG-INFO": PKG}, ("flash-attn", "2.8.3")),
    ({"pyproject.toml": '[project]\nname = "a"\nversion = "1"\n'}, ("a", "1")),
    ({"pyproject.toml": '[project]\nname = "a"\ndynamic = ["version"]\n'}, ("a", "")),
    ({"pyproject.toml": "[build-system]\nrequires = []\n"}, ("", "")),
    ({"pyproject.toml": "project = 3\n"}, ("", "")),
    ({"pyproject.toml": "[project"}, ("", "")),
    ({"setup.cfg": "[metadata]\nname = a\nversion = 1.0\n"}, ("a", "1.0")),
    ({"setup.cfg": "[metadata]\nname = a\nversion = attr: a.__version__\n"}, ("a", "")),
    ({"setup.cfg": "[options]\n"}, ("", "")),
    ({"setup.cfg": "nonsense"}, ("", "")),
    (
        {"setup.py": "from setuptools import setup\nsetup(name='sageattention', version='2.2.0')"},
        ("sageattention", "2.2.0"),
    ),
    (
        {"setup.py": "NAME = 'flash_attn'\nimport setuptools\nsetuptools.setup(name=NAME, version=get())"},
        ("flash_attn", ""),
    ),
    ({"setup.py": "setup(**options)"}, ("", "")),
    ({"setup.py": "def ("}, ("", "")),
    ({"setup.py": "setup(name='late')", "PKG-INFO": PKG}, ("flash-attn", "2.8.3")),
    ({"setup.py": "setup(name='a', version='3')", "pyproject.toml": "[build-system]\n"}, ("a", "3")),
    ({}, ("", "")),
]


@pytest.mark.parametrize(("files", "expected"), CASES)
def test_static_metadata(files: dict[str, str], expected: tuple[str, str]) -> None:
    assert static_metadata(files) == expected


@given(st.dictionaries(st.sampled_from(FILES), st.text(max_size=200)))
def test_any_text_is_survived(files: dict[str, str]) -> None:
    name, version = static_metadata(files)
    assert isinstance(name, str)
    assert isinstance(version, str)


BUILD = "[build-system]\nrequires = [{}]\n"


@pytest.mark.parametrize(
    ("files", "bounds"),
    [
        ({"pyproject.toml": BUILD.format('"setuptools", "torch == 2.14.0"')}, ["==2.14.0"]),  # vllm 0.33.0
        (
            {"PKG-INFO": PKG.replace("\n\n", "\nRequires-Dist: torch<2.7.1,>=2.7.0\n\n")},
            ["<2.7.1,>=2.7.0"],
        ),  # megablocks
        ({"pyproject.toml": '[project]\ndependencies = ["Torch>=2.4"]\n'}, [">=2.4"]),
        ({"pyproject.toml": BUILD.format('"torch>=2"'), "PKG-INFO": "Requires-Dist: torch>=2\n\n"}, [">=2"]),
        ({"pyproject.toml": BUILD.format('"torch>=2"'), "PKG-INFO": "Requires-Dist: torch<3\n\n"}, [">=2", "<3"]),
        ({"PKG-INFO": 'Requires-Dist: torch>=2.12.0; extra == "b12x"\n\n'}, []),
        ({"PKG-INFO": 'Requires-Dist: torch==2.9; sys_platform == "win32"\n\n'}, []),
        ({"PKG-INFO": 'Requires-Dist: torch==2.9; sys_platform == "linux"\n\n'}, ["==2.9"]),
        ({"PKG-INFO": "Requires-Dist: torchvision==1\nRequires-Dist: torch\nRequires-Dist: !\n\n"}, []),
        ({"pyproject.toml": "project = 3\n"}, []),
        ({"pyproject.toml": "[project]\ndependencies = 3\n"}, []),
        ({"pyproject.toml": "[project]\ndependencies = [3]\n"}, []),
        ({"pyproject.toml": "no TOML ["}, []),
        ({}, []),
    ],
)
def test_what_a_source_asks_of_torch(files: dict[str, str], bounds: list[str]) -> None:
    assert [str(one.specifier) for one in torch_bounds(files)] == bounds


@given(st.text(), st.text())
def test_any_text_is_read_for_bounds(pyproject: str, info: str) -> None:
    torch_bounds({"pyproject.toml": pyproject, "PKG-INFO": f"Requires-Dist: {info}"})
