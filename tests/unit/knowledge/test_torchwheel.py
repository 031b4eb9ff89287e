"""What the wheels of a PyTorch tell of it: requirements as PyTorch's own have them, and whatever an index may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.knowledge.torchwheel import cuda_in, is_for_linux, pythons_in

# Lines of METADATA on the package index.
OF_2_15 = (
    "filelock",
    "cuda-toolkit[cublas,cudart,cufft,cufile,cupti,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.2.2; "
    'platform_system == "Linux"',
    'cuda-bindings<14,>=13.0.3; platform_system == "Linux" and python_version < "3.15"',
)
OF_2_7 = (
    'nvidia-cuda-nvrtc-cu12==12.6.77; platform_system == "Linux" and platform_machine == "x86_64"',
    'nvidia-cuda-runtime-cu12==12.6.77; platform_system == "Linux" and platform_machine == "x86_64"',
)
OF_2_4 = ('nvidia-cuda-runtime-cu12 (==12.1.105) ; platform_system == "Linux" and platform_machine == "x86_64"',)


@pytest.mark.parametrize(
    ("lines", "cuda"),
    [
        (OF_2_15, "13.2"),
        (OF_2_7, "12.6"),
        (OF_2_4, "12.1"),
        (("nvidia-cuda-runtime==13.0.*",), "13.0"),
        (("nvidia-cuda-runtime-cu11==11.7.99",), "11.7"),
        # What is for other machines, not pinned, or nothing of the kind.
        (('cuda-toolkit==13.0.2; platform_system == "Windows"',), ""),
        (('nvidia-cuda-runtime==13.0.96; platform_machine == "aarch64"',), ""),
        (("nvidia-cuda-runtime>=13.0",), ""),
        (("nvidia-cuda-runtime==13",), ""),
        (("nvidia-cuda-nvrtc==13.0.88", "cuda-bindings==13.0.3"), ""),
        (("this is no requirement", "nvidia-cuda-runtime==12.8.90"), "12.8"),
        ((), ""),
    ],
)
def test_the_cuda_of_a_wheel(lines: tuple[str, ...], cuda: str) -> None:
    assert cuda_in(lines) == cuda


NAMES = (
    "torch-2.15.0-cp313-cp313-manylinux_2_28_x86_64.whl",
    "torch-2.15.0-cp39-cp39-manylinux1_x86_64.whl",
    "torch-2.10.0-3-cp310-cp310-manylinux_2_28_x86_64.whl",
    "torch-2.15.0-cp314-cp314t-manylinux_2_28_x86_64.whl",
    "torch-2.15.0-cp312-cp312-manylinux_2_28_aarch64.whl",
    "torch-2.15.0-cp311-none-macosx_11_0_arm64.whl",
    "torch-2.15.0-cp311-cp311-win_amd64.whl",
    "torch-2.15.0.tar.gz",
    "nonsense.whl",
)


def test_the_pythons_of_wheels() -> None:
    assert pythons_in(NAMES) == (("3.9", "3.10", "3.13"), ("3.14t",))
    assert [name for name in NAMES if is_for_linux(name)] == list(NAMES[:4])


@given(
    st.sets(st.integers(6, 40)),
    st.sets(st.integers(13, 40)),
    st.sampled_from(
        ["linux_x86_64", "manylinux1_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64.manylinux2014_x86_64"]
    ),
    st.randoms(use_true_random=False),
)
def test_every_python_is_read_and_in_order(locked: set[int], free: set[int], platform: str, chance: object) -> None:
    names = [f"torch-2.16.0-cp3{minor}-cp3{minor}-{platform}.whl" for minor in locked]
    names += [f"torch-2.16.0-cp3{minor}-cp3{minor}t-{platform}.whl" for minor in free]
    chance.shuffle(names)  # type: ignore[attr-defined]
    expected = tuple(f"3.{minor}" for minor in sorted(locked)), tuple(f"3.{minor}t" for minor in sorted(free))
    assert pythons_in(names) == expected


@given(
    st.sampled_from(["cuda-toolkit", "cuda_toolkit[cudart]", "nvidia-cuda-runtime", "Nvidia.Cuda-Runtime-cu12"]),
    st.integers(11, 99),
    st.integers(0, 99),
    st.sampled_from(["", ".*", ".1", ".96.3"]),
    st.lists(st.text(max_size=40), max_size=5),
)
def test_a_pinned_toolkit_is_found_among_anything(
    name: str, major: int, minor: int, rest: str, others: list[str]
) -> None:
    lines = [line for line in others if "cuda" not in line.lower()]
    assert cuda_in([*lines, f"{name}=={major}.{minor}{rest}"]) == f"{major}.{minor}"


@given(st.lists(st.text(max_size=60)))
def test_any_text_is_read(lines: list[str]) -> None:
    cuda_in(lines)
    assert not any(is_for_linux(line) for line in lines if not line.endswith(".whl"))
    pythons_in(lines)
