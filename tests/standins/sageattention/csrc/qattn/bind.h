// From tensors to a Problem: what the three modules of attention share.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/utils/pybind.h>

#include "problem.h"

enum Layout { NHD = 0, HND = 1 };
enum Granularity { PER_WARP = 2, PER_THREAD = 3 }; // upstream's numbers

inline Strides strides_of(const at::Tensor &tensor, int layout) {
    TORCH_CHECK(tensor.is_cuda() && tensor.dim() == 4 && tensor.stride(3) == 1, "a CUDA tensor of 4 dimensions, the last contiguous");
    return {tensor.stride(0), tensor.stride(layout == HND ? 2 : 1), tensor.stride(layout == HND ? 1 : 2)};
}

// Run `kernel` over quantized query and key (INT8) and value, into `output` (fp16 or bf16). Returns the log-sum-exp to
// the base 2, (batch, heads, rows) in 32 bits, or an empty tensor. Scales are as sageattention/quant.py makes them.
inline at::Tensor attend(int (*kernel)(const Problem &), const at::Tensor &query, const at::Tensor &key,
                         const at::Tensor &value, const at::Tensor &output, const at::Tensor &query_scale,
                         const at::Tensor &key_scale, const at::Tensor *value_scale, const at::Tensor *value_mean,
                         int layout, int causal, int granularity, float softmax_scale, int return_lse) {
    const int rows = layout == HND ? 2 : 1, heads = layout == HND ? 1 : 2;
    TORCH_CHECK(query.scalar_type() == at::kChar && key.scalar_type() == at::kChar, "query and key must be INT8");
    TORCH_CHECK(output.scalar_type() == at::kHalf || output.scalar_type() == at::kBFloat16, "output must be fp16 or bf16");
    TORCH_CHECK(query.size(heads) % key.size(heads) == 0, "num_qo_heads must be divisible by num_kv_heads");
    TORCH_CHECK(value.sizes() == key.sizes() && output.sizes() == query.sizes(), "value must be shaped as key, output as query");
    TORCH_CHECK(query.size(0) == key.size(0) && query.size(3) == key.size(3), "query and key must agree in batch and head_dim");
    TORCH_CHECK(query_scale.is_contiguous() && key_scale.is_contiguous(), "scales must be contiguous");
    const c10::cuda::CUDAGuard guard(query.device());
    Problem problem{};
    problem.query = query.const_data_ptr<int8_t>();
    problem.key = key.const_data_ptr<int8_t>();
    problem.query_scale = query_scale.const_data_ptr<float>();
    problem.key_scale = key_scale.const_data_ptr<float>();
    problem.value = value.const_data_ptr();
    problem.value_scale = value_scale ? value_scale->const_data_ptr<float>() : nullptr;
    problem.value_mean = value_mean ? value_mean->const_data_ptr<float>() : nullptr;
    problem.output = output.data_ptr();
    problem.query_strides = strides_of(query, layout);
    problem.key_strides = strides_of(key, layout);
    problem.value_strides = strides_of(value, layout);
    problem.output_strides = strides_of(output, layout);
    problem.batches = query.size(0);
    problem.heads = query.size(heads);
    problem.key_heads = key.size(heads);
    problem.query_rows = query.size(rows);
    problem.key_rows = key.size(rows);
    problem.head_dim = query.size(3);
    problem.query_group = granularity == PER_THREAD ? 4 : 32;
    problem.key_group = granularity == PER_THREAD ? 16 : 64;
    problem.softmax_scale = softmax_scale;
    problem.causal = causal;
    problem.bfloat16 = output.scalar_type() == at::kBFloat16;
    problem.stream = c10::cuda::getCurrentCUDAStream().stream();
    at::Tensor lse = query_scale.new_empty({return_lse ? query.size(0) : 0, query.size(heads), query.size(rows)});
    problem.lse = return_lse ? lse.mutable_data_ptr<float>() : nullptr;
    const int status = kernel(problem);
    TORCH_CHECK(status == 0, "the attention kernel could not be started: ", cudaGetErrorString(static_cast<cudaError_t>(status)));
    return lse;
}

// The call that takes value's scales (and its mean) with the rest, as upstream orders them.
template <int (*kernel)(const Problem &)>
at::Tensor plain(at::Tensor query, at::Tensor key, at::Tensor value, at::Tensor output, at::Tensor query_scale,
                 at::Tensor key_scale, int layout, int causal, int granularity, float scale, int return_lse) {
    return attend(kernel, query, key, value, output, query_scale, key_scale, nullptr, nullptr, layout, causal,
                  granularity, scale, return_lse);
}

template <int (*kernel)(const Problem &)>
at::Tensor with_scale(at::Tensor query, at::Tensor key, at::Tensor value, at::Tensor output, at::Tensor query_scale,
                      at::Tensor key_scale, at::Tensor value_scale, int layout, int causal, int granularity, float scale,
                      int return_lse) {
    return attend(kernel, query, key, value, output, query_scale, key_scale, &value_scale, nullptr, layout, causal,
                  granularity, scale, return_lse);
}

template <int (*kernel)(const Problem &)>
at::Tensor with_mean(at::Tensor query, at::Tensor key, at::Tensor value, at::Tensor output, at::Tensor query_scale,
                     at::Tensor key_scale, at::Tensor value_mean, int layout, int causal, int granularity, float scale,
                     int return_lse) {
    return attend(kernel, query, key, value, output, query_scale, key_scale, nullptr, &value_mean, layout, causal,
                  granularity, scale, return_lse);
}

template <int (*kernel)(const Problem &)>
at::Tensor with_both(at::Tensor query, at::Tensor key, at::Tensor value, at::Tensor output, at::Tensor query_scale,
                     at::Tensor key_scale, at::Tensor value_scale, at::Tensor value_mean, int layout, int causal,
                     int granularity, float scale, int return_lse) {
    return attend(kernel, query, key, value, output, query_scale, key_scale, &value_scale, &value_mean, layout, causal,
                  granularity, scale, return_lse);
}
