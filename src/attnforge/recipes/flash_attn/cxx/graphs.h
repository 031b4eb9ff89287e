// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/detail/UnpackRaw.cuh>
