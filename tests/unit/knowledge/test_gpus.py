from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import RequestError
from attnforge.knowledge import gpus
from attnforge.knowledge.gpus import all_gpus, find_gpu, gpu_key
from attnforge.model.target import Gpu


@pytest.mark.parametrize(
    ("written", "name", "capability"),
    [
        # As nvidia-smi prints them.
        ("NVIDIA H100 80GB HBM3", "H100", "9.0"),
        ("NVIDIA H100 PCIe", "H100", "9.0"),
        ("NVIDIA H100 NVL", "H100", "9.0"),
        ("NVIDIA H200", "H200", "9.0"),
        ("NVIDIA GH200 144G HBM3e", "GH200", "9.0"),
        ("NVIDIA H20-3e", "H20", "9.0"),
        ("NVIDIA L40S", "L40S", "8.9"),
        ("NVIDIA A100-SXM4-80GB", "A100", "8.0"),
        ("NVIDIA A100 80GB PCIe LC", "A100", "8.0"),
        ("NVIDIA A10G", "A10G", "8.6"),
        ("Tesla T4", "T4", "7.5"),
        ("GRID T4-16Q", "T4", "7.5"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090", "8.9"),
        ("NVIDIA GeForce RTX 3050Ti Laptop GPU", "RTX 3050 Ti", "8.6"),
        ("NVIDIA GeForce RTX 2050", "RTX 2050", "8.6"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX 4000 SFF Ada", "8.9"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell", "12.0"),
        ("NVIDIA RTX PRO 5000 72GB Blackwell", "RTX PRO 5000 Blackwell", "12.0"),
        ("NVIDIA RTX PRO 4000 Blackwell SFF Edition", "RTX PRO 4000 Blackwell SFF", "12.0"),
        ("Quadro RTX 6000 with Max-Q Design", "Quadro RTX 6000", "7.5"),
        ("Quadro T1000", "T1000", "7.5"),
        ("Orin (nvgpu)", "Jetson AGX Orin", "8.7"),
        ("NVIDIA B200", "B200", "10.0"),
        ("NVIDIA B300", "B300", "10.3"),
        # As people write them.
        ("l40s", "L40S", "8.9"),
        ("4090", "RTX 4090", "8.9"),
        ("rtx-3070-ti", "RTX 3070 Ti", "8.6"),
        ("A6000", "RTX A6000", "8.6"),
        ("GB200 NVL72", "GB200", "10.0"),
        ("dgx spark", "GB10", "12.1"),
        ("Jetson AGX Thor", "Jetson Thor", "11.0"),
    ],
)
def test_names(written: str, name: str, capability: str) -> None:
    found = find_gpu(written)
    assert (found.name, found.capability.dotted) == (name, capability)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("8.9", "sm_89"),
        ("sm_89", "sm_89"),
        ("89", "sm_89"),
        ("90a", "sm_90a"),
        ("10.0", "sm_100"),
        ("compute_120", "sm_120"),
    ],
)
def test_capabilities_keep_their_suffix(written: str, name: str) -> None:
    found = find_gpu(written)
    assert found.name == name
    assert found.capability.sm == name


@pytest.mark.parametrize("written", ["RTX 6000", "rtx 4000", "6000 "])
def test_a_name_of_several_generations_is_refused(written: str) -> None:
    with pytest.raises(RequestError, match="unknown GPU"):
        find_gpu(written)


def test_suggestions_name_every_generation_of_an_ambiguous_name() -> None:
    with pytest.raises(RequestError) as caught:
        find_gpu("RTX 6000")
    assert {"Quadro RTX 6000", "RTX 6000 Ada", "RTX PRO 6000 Blackwell"} <= {
        name.strip() for name in caught.value.hint.split("did you mean ")[1].split("?")[0].split(",")
    }


@pytest.mark.parametrize(
    ("written", "meant"), [("H10", "H100"), ("L40 X", "L40"), ("RTX 4900", "RTX 4090"), ("GB30", "GB300")]
)
def test_suggestions(written: str, meant: str) -> None:
    with pytest.raises(RequestError) as caught:
        find_gpu(written)
    assert meant in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("written", ["V100", "Tesla V100-SXM2-32GB", "GTX 1080 Ti", "P100", "7.0", "sm_61"])
def test_older_than_turing_is_refused_for_what_it_is(written: str) -> None:
    with pytest.raises(RequestError, match="too old"):
        find_gpu(written)


@pytest.mark.parametrize("written", ["8.5", "80a", "sm_99", "95"])
def test_a_capability_that_no_nvcc_knows(written: str) -> None:
    with pytest.raises(RequestError, match="unknown compute capability"):
        find_gpu(written)


@pytest.mark.parametrize("written", ["", " ", "NVIDIA", "banana", "гпу", "9", "gpu", "-"])
def test_nonsense(written: str) -> None:
    with pytest.raises(RequestError, match="unknown GPU"):
        find_gpu(written)


@given(
    gpu=st.sampled_from(all_gpus()),
    maker=st.sampled_from(["", "NVIDIA ", "nvidia-", "NVIDIA GeForce ", "Tesla ", "GeForce"]),
    separator=st.sampled_from([" ", "-", "_", "", "  "]),
    suffix=st.sampled_from(["", " 80GB", " PCIe", "-SXM4-40GB", " Laptop GPU", " 12 GB", "-24Q"]),
    upper=st.booleans(),
)
def test_spelling_does_not_matter(gpu: Gpu, maker: str, separator: str, suffix: str, upper: bool) -> None:
    written = maker + gpu.name.replace(" ", separator) + suffix
    assert find_gpu(written.upper() if upper else written.lower()) == gpu


@given(st.text(max_size=60))
def test_any_text_gives_a_gpu_or_a_request_error(text: str) -> None:
    try:
        found = find_gpu(text)
    except RequestError as error:
        assert error.what
        assert error.hint
    else:
        assert found.capability >= gpus.TURING


@given(st.text(max_size=60))
def test_a_key_is_stable(text: str) -> None:
    key = gpu_key(text)
    assert key == "".join(character for character in key if character in "abcdefghijklmnopqrstuvwxyz0123456789")
    assert gpu_key(text.upper()) == gpu_key(text.lower()) or not text.isascii()


def test_names_and_aliases_name_one_capability_each() -> None:
    table = gpus._table()
    seen: dict[str, str] = {}
    for group in table.group:
        assert table.sources[group.source].startswith("https://")
        assert set(group.aliases) <= set(group.names)
        for name in (*group.names, *(alias for names in group.aliases.values() for alias in names)):
            assert seen.setdefault(gpu_key(name), group.capability) == group.capability
    names = [gpu.name for gpu in all_gpus()]
    assert len(names) == len(set(names))


def test_every_listed_gpu_is_found_by_its_name_and_is_turing_or_newer() -> None:
    for gpu in all_gpus():
        assert find_gpu(gpu.name) == gpu
        assert gpu.capability >= gpus.TURING
