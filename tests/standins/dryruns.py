"""What ``nvcc --dryrun`` of CUDA 13.0 printed for tiny.cu, with other paths and without options that change nothing."""
# ruff: noqa: E501 - what nvcc prints is long

from __future__ import annotations

_HEAD = r"""
#$ _SPACE_=
#$ TOP=/p/cuda/bin/..
#$ CICC_PATH=/p/cuda/bin/../nvvm/bin
#$ LD_LIBRARY_PATH=/p/cuda/bin/../lib:
#$ PATH=/p/cuda/bin/../nvvm/bin:/p/cuda/bin:/usr/bin
#$ INCLUDES="-I/p/cuda/bin/../targets/x86_64-linux/include"
"""

ONE = (
    _HEAD
    + r"""
#$ gcc -D__CUDA_ARCH_LIST__=900 -E -x c++ -D__CUDACC__ -O3 "-I/p/cuda/bin/../include" -include "cuda_runtime.h" -m64 "/p/src/tiny.cu" -o "/t/tmpxft_00007d04_00000000-5_tiny.cpp4.ii"
#$ cudafe++ --c++17 --orig_src_file_name "/p/src/tiny.cu" --orig_src_path_name "/p/src/tiny.cu" --allow_managed --m64 --gen_c_file_name "/t/tmpxft_00007d04_00000000-6_tiny.cudafe1.cpp" --stub_file_name "tmpxft_00007d04_00000000-6_tiny.cudafe1.stub.c" --gen_module_id_file --module_id_file_name "/t/tmpxft_00007d04_00000000-4_tiny.module_id" "/t/tmpxft_00007d04_00000000-5_tiny.cpp4.ii"
#$ gcc -D__CUDA_ARCH__=900 -D__CUDA_ARCH_FEAT_SM90_ALL -D__CUDA_ARCH_LIST__=900 -E -x c++ -O3 -m64 "/p/src/tiny.cu" -o "/t/tmpxft_00007d04_00000000-7_tiny.cpp1.ii"
#$ "$CICC_PATH/cicc" --c++17 --orig_src_file_name "/p/src/tiny.cu" --orig_src_path_name "/p/src/tiny.cu" -arch compute_90a -m64 -ftz=0 --include_file_name "tmpxft_00007d04_00000000-3_tiny.fatbin.c" -tused --module_id_file_name "/t/tmpxft_00007d04_00000000-4_tiny.module_id" --gen_c_file_name "/t/tmpxft_00007d04_00000000-6_tiny.cudafe1.c" --stub_file_name "/t/tmpxft_00007d04_00000000-6_tiny.cudafe1.stub.c" --gen_device_file_name "/t/tmpxft_00007d04_00000000-6_tiny.cudafe1.gpu"  "/t/tmpxft_00007d04_00000000-7_tiny.cpp1.ii" -o "/t/tmpxft_00007d04_00000000-6_tiny.ptx"
#$ ptxas -arch=sm_90a -m64  "/t/tmpxft_00007d04_00000000-6_tiny.ptx"  -o "/t/tmpxft_00007d04_00000000-8_tiny.cubin"
#$ fatbinary -64 --cicc-cmdline="-ftz=0 -fmad=1 " "--image3=kind=elf,sm=90a,file=/t/tmpxft_00007d04_00000000-8_tiny.cubin" --embedded-fatbin="/t/tmpxft_00007d04_00000000-3_tiny.fatbin.c"
#$ rm /t/tmpxft_00007d04_00000000-3_tiny.fatbin
#$ gcc -D__CUDA_ARCH__=900 -c -x c++ -O3 "-I/p/cuda/bin/../include" -m64 "/t/tmpxft_00007d04_00000000-6_tiny.cudafe1.cpp" -o "x.o"
"""
)

# -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90
THREE = (
    _HEAD
    + r"""
#$ gcc -D__CUDA_ARCH_LIST__=800,900 -E -x c++ -D__CUDACC__ -O3 "-I/p/cuda/bin/../include" -include "cuda_runtime.h" -m64 "/p/src/tiny.cu" -o "/t/tmpxft_00007d07_00000000-5_tiny.cpp4.ii"
#$ cudafe++ --c++17 --orig_src_file_name "/p/src/tiny.cu" --orig_src_path_name "/p/src/tiny.cu" --allow_managed --m64 --gen_c_file_name "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.cudafe1.cpp" --stub_file_name "tmpxft_00007d07_00000000-6_tiny.compute_90.cudafe1.stub.c" --gen_module_id_file --module_id_file_name "/t/tmpxft_00007d07_00000000-4_tiny.module_id" "/t/tmpxft_00007d07_00000000-5_tiny.cpp4.ii"
#$ gcc -D__CUDA_ARCH__=800 -D__CUDA_ARCH_LIST__=800,900 -E -x c++ -O3 -m64 "/p/src/tiny.cu" -o "/t/tmpxft_00007d07_00000000-9_tiny.compute_80.cpp1.ii"
#$ "$CICC_PATH/cicc" --c++17 --orig_src_file_name "/p/src/tiny.cu" --orig_src_path_name "/p/src/tiny.cu" -arch compute_80 -m64 -ftz=0 --include_file_name "tmpxft_00007d07_00000000-3_tiny.fatbin.c" -tused --module_id_file_name "/t/tmpxft_00007d07_00000000-4_tiny.module_id" --gen_c_file_name "/t/tmpxft_00007d07_00000000-8_tiny.compute_80.cudafe1.c" --stub_file_name "/t/tmpxft_00007d07_00000000-8_tiny.compute_80.cudafe1.stub.c" --gen_device_file_name "/t/tmpxft_00007d07_00000000-8_tiny.compute_80.cudafe1.gpu"  "/t/tmpxft_00007d07_00000000-9_tiny.compute_80.cpp1.ii" -o "/t/tmpxft_00007d07_00000000-8_tiny.compute_80.ptx"
#$ ptxas -arch=sm_80 -m64  "/t/tmpxft_00007d07_00000000-8_tiny.compute_80.ptx"  -o "/t/tmpxft_00007d07_00000000-10_tiny.compute_80.cubin"
#$ gcc -D__CUDA_ARCH__=900 -D__CUDA_ARCH_FEAT_SM90_ALL -D__CUDA_ARCH_LIST__=800,900 -E -x c++ -O3 -m64 "/p/src/tiny.cu" -o "/t/tmpxft_00007d07_00000000-11_tiny.compute_90a.cpp1.ii"
#$ "$CICC_PATH/cicc" --c++17 --orig_src_file_name "/p/src/tiny.cu" --orig_src_path_name "/p/src/tiny.cu" -arch compute_90a -m64 -ftz=0 --include_file_name "tmpxft_00007d07_00000000-3_tiny.fatbin.c" -tused --module_id_file_name "/t/tmpxft_00007d07_00000000-4_tiny.module_id" --gen_c_file_name "/t/tmpxft_00007d07_00000000-7_tiny.compute_90a.cudafe1.c" --stub_file_name "/t/tmpxft_00007d07_00000000-7_tiny.compute_90a.cudafe1.stub.c" --gen_device_file_name "/t/tmpxft_00007d07_00000000-7_tiny.compute_90a.cudafe1.gpu"  "/t/tmpxft_00007d07_00000000-11_tiny.compute_90a.cpp1.ii" -o "/t/tmpxft_00007d07_00000000-7_tiny.compute_90a.ptx"
#$ ptxas -arch=sm_90a -m64  "/t/tmpxft_00007d07_00000000-7_tiny.compute_90a.ptx"  -o "/t/tmpxft_00007d07_00000000-12_tiny.compute_90a.cubin"
#$ gcc -D__CUDA_ARCH__=900 -D__CUDA_ARCH_LIST__=800,900 -E -x c++ -O3 -m64 "/p/src/tiny.cu" -o "/t/tmpxft_00007d07_00000000-13_tiny.compute_90.cpp1.ii"
#$ "$CICC_PATH/cicc" --c++17 --orig_src_file_name "/p/src/tiny.cu" --orig_src_path_name "/p/src/tiny.cu" -arch compute_90 -m64 -ftz=0 --include_file_name "tmpxft_00007d07_00000000-3_tiny.fatbin.c" -tused --module_id_file_name "/t/tmpxft_00007d07_00000000-4_tiny.module_id" --gen_c_file_name "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.cudafe1.c" --stub_file_name "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.cudafe1.stub.c" --gen_device_file_name "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.cudafe1.gpu"  "/t/tmpxft_00007d07_00000000-13_tiny.compute_90.cpp1.ii" -o "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.ptx"
#$ ptxas -arch=compute_90 -m64  "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.ptx"
#$ fatbinary -64 --cicc-cmdline="-ftz=0 -fmad=1 " "--image3=kind=elf,sm=80,file=/t/tmpxft_00007d07_00000000-10_tiny.compute_80.cubin" "--image3=kind=elf,sm=90a,file=/t/tmpxft_00007d07_00000000-12_tiny.compute_90a.cubin" "--image3=kind=ptx,sm=90,file=/t/tmpxft_00007d07_00000000-6_tiny.compute_90.ptx" --embedded-fatbin="/t/tmpxft_00007d07_00000000-3_tiny.fatbin.c"
#$ rm /t/tmpxft_00007d07_00000000-3_tiny.fatbin
#$ gcc -D__CUDA_ARCH__=900 -c -x c++ -O3 "-I/p/cuda/bin/../include" -m64 "/t/tmpxft_00007d07_00000000-6_tiny.compute_90.cudafe1.cpp" -o "x.o"
"""
)

# -gencode arch=compute_90,code=[sm_90,compute_90]: one cicc for both.
WITH_PTX = (
    ONE.replace("compute_90a", "compute_90")
    .replace("sm_90a", "sm_90")
    .replace("-8_tiny.cubin", "-8_tiny.sm_90.cubin")
    .replace(
        '" --embedded-fatbin',
        '" "--image3=kind=ptx,sm=90,file=/t/tmpxft_00007d04_00000000-6_tiny.ptx" --embedded-fatbin',
    )
)

# -gencode arch=compute_80,code=sm_80 -gencode arch=compute_80,code=sm_86: one cicc, two ptxas.
TWO_CUBINS = ONE.replace(
    '#$ ptxas -arch=sm_90a -m64  "/t/tmpxft_00007d04_00000000-6_tiny.ptx"  -o "/t/tmpxft_00007d04_00000000-8_tiny.cubin"',
    '#$ ptxas -arch=sm_86 -m64  "/t/tmpxft_00007d04_00000000-6_tiny.ptx"  -o "/t/tmpxft_00007d04_00000000-8_tiny.sm_86.cubin"\n'
    '#$ ptxas -arch=sm_80 -m64  "/t/tmpxft_00007d04_00000000-6_tiny.ptx"  -o "/t/tmpxft_00007d04_00000000-9_tiny.sm_80.cubin"',
).replace(
    '"--image3=kind=elf,sm=90a,file=/t/tmpxft_00007d04_00000000-8_tiny.cubin"',
    '"--image3=kind=elf,sm=86,file=/t/tmpxft_00007d04_00000000-8_tiny.sm_86.cubin"'
    ' "--image3=kind=elf,sm=80,file=/t/tmpxft_00007d04_00000000-9_tiny.sm_80.cubin"',
)
