// INT8-QK attention by the plainest means: a warp takes its rows of queries one after the other through tiles of keys.
//
// P is in [0, 1] and kept in 32 bits, or multiplied by 448 and rounded to e4m3 where V is e4m3. The softmax is online
// and in 32 bits, and so are all sums. Causal: query i sees keys 0 to i.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "../faults.h"
#include "problem.h"

namespace standin {

constexpr int WARPS = 8;
constexpr int ROWS_OF_WARP = 4;
constexpr int QUERIES = WARPS * ROWS_OF_WARP;
constexpr int KEYS = 32; // a lane each
constexpr float LOG2E = 1.4426950408889634f;
constexpr float E4M3_MAX = 448.0f;

struct E4m3 {
    uint8_t bits;
};

__device__ inline float to_float(__half value) { return __half2float(value); }

// These two exist in PTX from sm_89 on: below it, ptxas refuses the unit.
__device__ inline float to_float(E4m3 value) {
    uint32_t halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(value.bits)));
    return __half2float(__ushort_as_half(static_cast<uint16_t>(halves & 0xffff)));
}

__device__ inline float round_to_e4m3(float value) {
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
    return to_float(E4m3{static_cast<uint8_t>(pair & 0xff)});
}

// The weight of a key as the product with V takes it, and what that was multiplied by.
template <typename Value> struct Weight;
template <> struct Weight<__half> {
    static constexpr float factor = 1.0f;
    static __device__ float rounded(float weight) { return __half2float(__float2half(weight)); }
};
template <> struct Weight<E4m3> {
    static constexpr float factor = E4M3_MAX;
    static __device__ float rounded(float weight) { return round_to_e4m3(weight * E4M3_MAX); }
};

__device__ inline void store(void *output, int64_t at, float value, bool bfloat16) {
    if (bfloat16) static_cast<__nv_bfloat16 *>(output)[at] = __float2bfloat16(value);
    else static_cast<__half *>(output)[at] = __float2half(value);
}

__device__ inline float warp_max(float value) {
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
    return value;
}

__device__ inline float warp_sum(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

// One row's softmax so far: the largest logit (base 2), the sum of weights, and this lane's channels of the product.
template <int HEAD_DIM> struct Row {
    float largest = -INFINITY, sum = 0.0f, product[HEAD_DIM / 32] = {};
};

template <int HEAD_DIM, typename Value> struct Tiles {
    int query[QUERIES][HEAD_DIM / 4];
    int key[KEYS][HEAD_DIM / 4 + 1]; // a word more: lanes read different rows from different banks
    float value[KEYS][HEAD_DIM];
    float key_scale[KEYS];
};

// Take one tile of keys into a row. A lane has one key in the first half, and HEAD_DIM / 32 channels in the second.
template <int HEAD_DIM, typename Value>
__device__ void attend(Row<HEAD_DIM> &row, const Tiles<HEAD_DIM, Value> &tiles, int query, float scale, bool visible) {
    const int lane = threadIdx.x % 32;
    int dot = 0;
    for (int word = 0; word < HEAD_DIM / 4; ++word) dot = __dp4a(tiles.query[query][word], tiles.key[lane][word], dot);
    const float logit = visible ? dot * (scale * tiles.key_scale[lane]) : -INFINITY;
    const float largest = fmaxf(row.largest, warp_max(logit));
    if (largest == -INFINITY) return; // nothing is visible yet
    const float shrink = exp2f(row.largest - largest), weight = exp2f(logit - largest);
    const float rounded = Weight<Value>::rounded(weight);
    row.largest = largest;
    row.sum = row.sum * shrink + warp_sum(weight);
    for (float &channel : row.product) channel *= shrink;
    for (int key = 0; key < KEYS; ++key) {
        const float of_key = __shfl_sync(~0u, rounded, key);
        for (int i = 0; i < HEAD_DIM / 32; ++i) row.product[i] += of_key * tiles.value[key][lane + 32 * i];
    }
}

// `Prologue` is what an architecture's own unit wants done first. Grid: (tiles of queries, heads, batches).
template <int HEAD_DIM, typename Value, typename Prologue>
__global__ void __launch_bounds__(WARPS * 32) attention(const Problem problem) {
    __shared__ Tiles<HEAD_DIM, Value> tiles;
    Prologue::run();
#if STANDIN_FAULT_HANG
    for (;;) __nanosleep(1000);
#endif
    const int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * ROWS_OF_WARP;
    const int head = blockIdx.y, batch = blockIdx.z, first_query = blockIdx.x * QUERIES;
    const int key_head = head / (problem.heads / problem.key_heads);
    const int64_t pair = int64_t(batch) * problem.heads + head, key_pair = int64_t(batch) * problem.key_heads + key_head;
    const auto base = [&](const Strides &strides, int of) { return batch * strides.batch + of * strides.head; };
    const int8_t *query = problem.query + base(problem.query_strides, head);
    const int8_t *key = problem.key + base(problem.key_strides, key_head);
    const Value *value = static_cast<const Value *>(problem.value) + base(problem.value_strides, key_head);
    const float *query_scale = problem.query_scale + pair * ((problem.query_rows + problem.query_group - 1) / problem.query_group);
    const float *key_scale = problem.key_scale + key_pair * ((problem.key_rows + problem.key_group - 1) / problem.key_group);
    float softmax_scale = problem.softmax_scale * LOG2E;
#if STANDIN_FAULT_SCALE
    softmax_scale *= 2.0f;
#endif

    for (int at = threadIdx.x; at < QUERIES * HEAD_DIM / 4; at += blockDim.x) {
        const int row = at / (HEAD_DIM / 4), word = at % (HEAD_DIM / 4), index = first_query + row;
        tiles.query[row][word] = index < problem.query_rows
            ? reinterpret_cast<const int *>(query + index * problem.query_strides.row)[word] : 0;
    }
    Row<HEAD_DIM> rows[ROWS_OF_WARP];
    const int end = problem.causal ? min(problem.key_rows, first_query + QUERIES) : problem.key_rows;
    for (int first_key = 0; first_key < end; first_key += KEYS) {
        __syncthreads();
        for (int at = threadIdx.x; at < KEYS * HEAD_DIM / 4; at += blockDim.x) {
            const int row = at / (HEAD_DIM / 4), word = at % (HEAD_DIM / 4), index = first_key + row;
            tiles.key[row][word] = index < problem.key_rows
                ? reinterpret_cast<const int *>(key + index * problem.key_strides.row)[word] : 0;
        }
        for (int at = threadIdx.x; at < KEYS * HEAD_DIM; at += blockDim.x) {
            const int row = at / HEAD_DIM, channel = at % HEAD_DIM, index = first_key + row;
            tiles.value[row][channel] = index < problem.key_rows
                ? to_float(value[index * problem.value_strides.row + channel]) : 0.0f;
        }
        if (threadIdx.x < KEYS)
            tiles.key_scale[threadIdx.x] = first_key + threadIdx.x < problem.key_rows
                ? key_scale[(first_key + threadIdx.x) / problem.key_group] : 0.0f;
        __syncthreads();
        for (int i = 0; i < ROWS_OF_WARP; ++i) {
            const int index = first_query + first_row + i, key_index = first_key + lane;
            if (index >= problem.query_rows) break;
            const bool visible = key_index < problem.key_rows && (!problem.causal || key_index <= index);
            attend<HEAD_DIM, Value>(rows[i], tiles, first_row + i, softmax_scale * query_scale[index / problem.query_group], visible);
        }
    }

    for (int i = 0; i < ROWS_OF_WARP; ++i) {
        const int index = first_query + first_row + i;
        if (index >= problem.query_rows) break;
#if STANDIN_FAULT_UNWRITTEN_ROW
        if (index == problem.query_rows - 1) break;
#endif
        const int64_t output = base(problem.output_strides, head) + index * problem.output_strides.row;
        const float inverse = rows[i].sum > 0.0f ? 1.0f / (rows[i].sum * Weight<Value>::factor) : 0.0f;
        for (int j = 0; j < HEAD_DIM / 32; ++j) {
            const int channel = lane + 32 * j;
            float result = rows[i].product[j] * inverse;
            if (problem.value_scale) result *= problem.value_scale[key_pair * HEAD_DIM + channel];
            if (problem.value_mean) result += problem.value_mean[key_pair * HEAD_DIM + channel];
            store(problem.output, output + channel, result, problem.bfloat16);
        }
        if (problem.lse && lane == 0) problem.lse[pair * problem.query_rows + index] = rows[i].largest + log2f(rows[i].sum);
    }
}

struct NoPrologue {
    static __device__ void run() {}
};

// Start the kernel for the head dimension, 64 or 128. Returns what cudaGetLastError says; starts nothing for no rows.
template <typename Value, typename Prologue = NoPrologue> int launch(const Problem &problem) {
    if (problem.query_rows == 0 || problem.batches == 0) return cudaSuccess;
    const dim3 grid((problem.query_rows + QUERIES - 1) / QUERIES, problem.heads, problem.batches);
    const auto stream = static_cast<cudaStream_t>(problem.stream);
    if (problem.head_dim == 64) attention<64, Value, Prologue><<<grid, WARPS * 32, 0, stream>>>(problem);
    else if (problem.head_dim == 128) attention<128, Value, Prologue><<<grid, WARPS * 32, 0, stream>>>(problem);
    else return cudaErrorInvalidValue;
    return cudaGetLastError();
}

} // namespace standin
