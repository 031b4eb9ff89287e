// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime.h>
namespace at::cuda {
// Kept, as PyTorch does: the driver takes milliseconds to tell.
inline cudaDeviceProp *getCurrentDeviceProperties() {
    thread_local int known = -1;
    thread_local cudaDeviceProp properties;
    int device = 0;
    C10_CUDA_CHECK(cudaGetDevice(&device));
    if (device != known) {
        C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
        known = device;
    }
    return &properties;
}
}
