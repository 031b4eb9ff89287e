// What is asked of the quantizing kernels. Addresses, sizes, strides in elements; inputs are fp16 or bf16.
#pragma once

#include <cstdint>

struct Tensor4 {
    const void *data;
    int64_t batch, row, head; // strides; the last dimension is contiguous
    int batches, rows, heads, head_dim;
    bool bfloat16;
};

// INT8 with a scale for each group of rows: (batches, heads, groups). `mean`, (batches, heads, head_dim) in the input's
// type, is subtracted first unless it is null. `output` is contiguous in the input's own layout: `to` has its strides.
int quantize_rows(const Tensor4 &from, const void *mean, int8_t *output, const Tensor4 &to, float *scale, int group, void *stream);

// e4m3 with a scale for each channel, (batches, heads, head_dim): the largest magnitude becomes `largest`. With `mean`
// (32 bits) the mean over the rows is taken out and written there.
int quantize_channels(const Tensor4 &from, uint8_t *output, const Tensor4 &to, float *mean, float *scale, float largest, void *stream);

// `from` less `mean`, (batches, heads, head_dim) in the input's type, as fp16.
int subtract_mean(const Tensor4 &from, const void *mean, void *output, const Tensor4 &to, void *stream);
