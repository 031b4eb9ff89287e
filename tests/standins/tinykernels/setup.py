"""A project that is no attention kernel and has no recipe: what any CUDA extension's setup.py looks like."""

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

UNITS = ("binding.cpp", "scale.cu", "shift.cu", "total.cu")

setup(
    name="tinykernels",
    version="1.2.0",
    packages=["tinykernels"],
    ext_modules=[
        CUDAExtension(
            "tinykernels._C",
            [f"csrc/{unit}" for unit in UNITS],
            extra_compile_args={"cxx": ["-O1"], "nvcc": ["-O1"]},
        )
    ],
    cmdclass={"build_ext": BuildExtension},
    install_requires=["torch"],
)
