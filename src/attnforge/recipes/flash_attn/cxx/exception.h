// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
namespace attnforge {
void cuda_check(cudaError_t error, const char *file, const char *function, unsigned line);
}
#define C10_CUDA_CHECK(EXPR) ::attnforge::cuda_check((EXPR), __FILE__, __func__, __LINE__)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() C10_CUDA_CHECK(cudaGetLastError())
