"""The layout of FlashAttention 2's build, with kernels of our own that say who they are.

The settings are those that upstream's setup.py reads: without FLASH_ATTENTION_FORCE_BUILD it would try to download a
wheel, and it compiles for architectures of its own.
"""

import os
from pathlib import Path

from setuptools import find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

if os.environ.get("FLASH_ATTENTION_FORCE_BUILD") != "TRUE":
    raise RuntimeError("Precompiled wheel not found, and this stand-in has none to download")

ARCHITECTURES = os.environ.get("FLASH_ATTN_CUDA_ARCHS", "80;90;100;120").split(";")
HERE = Path(__file__).parent
SOURCES = HERE / "csrc" / "flash_attn"

setup(
    name="flash-attn",
    version="2.8.3",
    packages=find_packages(exclude=("build", "csrc")),
    ext_modules=[
        CUDAExtension(
            name="flash_attn_2_cuda",
            sources=[
                "csrc/flash_attn/flash_api.cpp",
                *sorted(str(path.relative_to(HERE)) for path in (SOURCES / "src").glob("*.cu")),
            ],
            extra_compile_args={
                "cxx": ["-O1"],
                "nvcc": [
                    "-O1",
                    *(
                        word
                        for number in ARCHITECTURES
                        for word in ("-gencode", f"arch=compute_{number},code=sm_{number}")
                    ),
                    "--threads",
                    os.environ.get("NVCC_THREADS", "4"),
                ],
            },
            include_dirs=[str(SOURCES), str(SOURCES / "src")],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
    install_requires=["torch", "einops"],
)
