// What an attention kernel is asked for: addresses, sizes and strides, so that the kernels need no header of PyTorch.
#pragma once

#include <cstdint>

struct Strides { // in elements; the last dimension is contiguous
    int64_t batch, row, head;
};

struct Problem {
    const int8_t *query, *key;               // INT8
    const float *query_scale, *key_scale;    // (batch, heads, groups of rows): multiplies an integer
    const void *value;                       // fp16, or e4m3
    const float *value_scale, *value_mean;   // (batch, key heads, head_dim), or null
    void *output;                            // fp16 or bf16
    float *lse;                              // (batch, heads, query rows), to the base 2, or null
    Strides query_strides, key_strides, value_strides, output_strides;
    int batches, heads, key_heads, query_rows, key_rows, head_dim;
    int query_group, key_group;              // rows that share a scale
    float softmax_scale;
    bool causal, bfloat16;
    void *stream;                            // a cudaStream_t
};
