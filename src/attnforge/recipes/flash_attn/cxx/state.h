// Made by attnforge. Stands for PyTorch's header of that name in units of kernels.
#pragma once
#include <cstdint>
namespace at {
struct PhiloxCudaState {
    union Payload {
        uint64_t val;
        int64_t *ptr;
    };
    Payload seed_{};
    Payload offset_{};
    ${intragraph} offset_intragraph_ = 0;
    bool captured_ = false;
};
}
