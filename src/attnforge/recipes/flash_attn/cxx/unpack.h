// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <cstdint>
#include <cuda_runtime.h>
#include <tuple>
namespace at::cuda::philox {
// While a CUDA graph is captured, seed and offset are not known yet: then the state points to them.
__host__ __device__ __forceinline__ std::tuple<uint64_t, uint64_t> unpack(at::PhiloxCudaState state) {
    if (state.captured_) {
        return std::make_tuple(static_cast<uint64_t>(*state.seed_.ptr),
                               static_cast<uint64_t>(*(state.offset_.ptr) + state.offset_intragraph_));
    }
    return std::make_tuple(state.seed_.val, state.offset_.val);
}
}
