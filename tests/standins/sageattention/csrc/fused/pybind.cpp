#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/utils/pybind.h>

#include "fused.h"

namespace {

// layout: 0 is (batch, row, head, channel), 1 is (batch, head, row, channel).
Tensor4 described(const at::Tensor &tensor, int layout) {
    TORCH_CHECK(tensor.is_cuda() && tensor.dim() == 4 && tensor.stride(3) == 1, "a CUDA tensor of 4 dimensions, the last contiguous");
    const int row = layout ? 2 : 1, head = layout ? 1 : 2;
    return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(row), tensor.stride(head),
            static_cast<int>(tensor.size(0)), static_cast<int>(tensor.size(row)), static_cast<int>(tensor.size(head)),
            static_cast<int>(tensor.size(3)), tensor.scalar_type() == at::kBFloat16};
}

Tensor4 input(const at::Tensor &tensor, int layout) {
    TORCH_CHECK(tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16, "input must be fp16 or bf16");
    TORCH_CHECK(tensor.size(3) == 64 || tensor.size(3) == 128, "head_dim must be 64 or 128");
    return described(tensor, layout);
}

void *stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void check(int status) {
    TORCH_CHECK(status == 0, "the kernel could not be started: ", cudaGetErrorString(static_cast<cudaError_t>(status)));
}

void rows(const at::Tensor &from, const at::Tensor *mean, const at::Tensor &output, const at::Tensor &scale, int group, int layout) {
    const c10::cuda::CUDAGuard guard(from.device());
    TORCH_CHECK(!mean || (mean->is_contiguous() && mean->scalar_type() == from.scalar_type()), "mean must be contiguous, in the input's type");
    check(quantize_rows(input(from, layout), mean ? mean->const_data_ptr() : nullptr, output.mutable_data_ptr<int8_t>(),
                        described(output, layout), scale.mutable_data_ptr<float>(), group, stream()));
}

void per_block(at::Tensor from, at::Tensor output, at::Tensor scale, int group, int layout) {
    rows(from, nullptr, output, scale, group, layout);
}

void per_block_less_mean(at::Tensor from, at::Tensor mean, at::Tensor output, at::Tensor scale, int group, int layout) {
    rows(from, &mean, output, scale, group, layout);
}

void channels(const at::Tensor &from, const at::Tensor &output, const at::Tensor *mean, const at::Tensor &scale, float largest, int layout) {
    const c10::cuda::CUDAGuard guard(from.device());
    check(quantize_channels(input(from, layout), static_cast<uint8_t *>(output.mutable_data_ptr()), described(output, layout),
                            mean ? mean->mutable_data_ptr<float>() : nullptr, scale.mutable_data_ptr<float>(), largest, stream()));
}

void per_channel(at::Tensor from, at::Tensor output, at::Tensor scale, float largest, int layout) {
    channels(from, output, nullptr, scale, largest, layout);
}

void per_channel_less_mean(at::Tensor from, at::Tensor output, at::Tensor mean, at::Tensor scale, float largest, int layout) {
    channels(from, output, &mean, scale, largest, layout);
}

void sub_mean(at::Tensor from, at::Tensor mean, at::Tensor output, int layout) {
    const c10::cuda::CUDAGuard guard(from.device());
    TORCH_CHECK(mean.is_contiguous() && mean.scalar_type() == from.scalar_type(), "mean must be contiguous, in the input's type");
    check(subtract_mean(input(from, layout), mean.const_data_ptr(), output.mutable_data_ptr(), described(output, layout), stream()));
}

} // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("quant_per_block_int8_cuda", &per_block);
    m.def("quant_per_block_int8_fuse_sub_mean_cuda", &per_block_less_mean);
    m.def("scale_fuse_quant_cuda", &per_channel);
    m.def("mean_scale_fuse_quant_cuda", &per_channel_less_mean);
    m.def("sub_mean_cuda", &sub_mean);
}
