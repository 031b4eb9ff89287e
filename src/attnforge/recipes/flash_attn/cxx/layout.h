#include <cstddef>
#include <cstdint>
#include <ATen/cuda/PhiloxCudaState.h>
static_assert(sizeof(at::PhiloxCudaState) == ${size} && alignof(at::PhiloxCudaState) == 8
              && offsetof(at::PhiloxCudaState, seed_) == 0 && offsetof(at::PhiloxCudaState, offset_) == 8
              && offsetof(at::PhiloxCudaState, offset_intragraph_) == 16
              && sizeof(at::PhiloxCudaState::offset_intragraph_) == sizeof(${intragraph})
              && offsetof(at::PhiloxCudaState, captured_) == ${captured_at}
              && sizeof(at::PhiloxCudaState::captured_) == 1 && sizeof(at::PhiloxCudaState::Payload) == 8,
              "PyTorch lays out at::PhiloxCudaState in another way than the kernels were compiled for");
