// Quantization by the plainest means. cuda_fp8.h converts in software below 8.9, so this is compiled for any architecture.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "fused.h"

namespace {

constexpr float INT8_MAX_VALUE = 127.0f;
constexpr float SMALLEST = 1e-20f; // in place of a scale of zero, by which nothing can be divided
constexpr int THREADS = 128;
constexpr int ROW_GROUPS = 8;      // threads that share a channel

__device__ float load(const void *data, int64_t at, bool bfloat16) {
    return bfloat16 ? __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[at])
                    : __half2float(static_cast<const __half *>(data)[at]);
}

__device__ int64_t place(const Tensor4 &tensor, int row, int channel) { // of this block's batch and head
    return blockIdx.z * tensor.batch + blockIdx.y * tensor.head + row * tensor.row + channel;
}

__device__ int64_t channel_place(const Tensor4 &tensor, int channel) {
    return (int64_t(blockIdx.z) * tensor.heads + blockIdx.y) * tensor.head_dim + channel;
}

__device__ float less_mean(const Tensor4 &from, const void *mean, int row, int channel) {
    const float value = load(from.data, place(from, row, channel), from.bfloat16);
    return mean ? value - load(mean, channel_place(from, channel), from.bfloat16) : value;
}

// A block for each group of rows.
__global__ void rows_kernel(Tensor4 from, const void *mean, int8_t *output, Tensor4 to, float *scale, int group) {
    __shared__ float largest_of[THREADS];
    const int first = blockIdx.x * group, count = min(group, from.rows - first) * from.head_dim;
    float largest = SMALLEST;
    for (int at = threadIdx.x; at < count; at += THREADS)
        largest = fmaxf(largest, fabsf(less_mean(from, mean, first + at / from.head_dim, at % from.head_dim)));
    largest_of[threadIdx.x] = largest;
    __syncthreads();
    for (int other = 0; other < THREADS; ++other) largest = fmaxf(largest, largest_of[other]);
    const float step = largest / INT8_MAX_VALUE;
    for (int at = threadIdx.x; at < count; at += THREADS) {
        const int row = first + at / from.head_dim, channel = at % from.head_dim;
        output[place(to, row, channel)] = static_cast<int8_t>(__float2int_rn(less_mean(from, mean, row, channel) / step));
    }
    if (threadIdx.x == 0) scale[(int64_t(blockIdx.z) * from.heads + blockIdx.y) * gridDim.x + blockIdx.x] = step;
}

// What the threads of a channel say together. Block: (channels, ROW_GROUPS).
template <typename Join> __device__ float over_rows(float value, Join join) {
    __shared__ float parts[ROW_GROUPS][128];
    __syncthreads();
    parts[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    value = parts[0][threadIdx.x];
    for (int other = 1; other < ROW_GROUPS; ++other) value = join(value, parts[other][threadIdx.x]);
    return value;
}

// A block for each batch and head, over all rows.
__global__ void channels_kernel(Tensor4 from, uint8_t *output, Tensor4 to, float *mean, float *scale, float top) {
    const int channel = threadIdx.x;
    float sum = 0.0f, largest = SMALLEST;
    for (int row = threadIdx.y; mean && row < from.rows; row += ROW_GROUPS)
        sum += load(from.data, place(from, row, channel), from.bfloat16);
    const float middle = over_rows(sum, [](float a, float b) { return a + b; }) / max(from.rows, 1);
    for (int row = threadIdx.y; row < from.rows; row += ROW_GROUPS)
        largest = fmaxf(largest, fabsf(load(from.data, place(from, row, channel), from.bfloat16) - middle));
    const float step = over_rows(largest, [](float a, float b) { return fmaxf(a, b); }) / top;
    for (int row = threadIdx.y; row < from.rows; row += ROW_GROUPS) {
        const float value = (load(from.data, place(from, row, channel), from.bfloat16) - middle) / step;
        output[place(to, row, channel)] = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
    }
    if (threadIdx.y != 0) return;
    scale[channel_place(from, channel)] = step;
    if (mean) mean[channel_place(from, channel)] = middle;
}

__global__ void subtract_kernel(Tensor4 from, const void *mean, __half *output, Tensor4 to) {
    for (int at = threadIdx.x; at < from.head_dim; at += THREADS)
        output[place(to, blockIdx.x, at)] = __float2half(less_mean(from, mean, blockIdx.x, at));
}

bool empty(const Tensor4 &tensor) { return tensor.batches == 0 || tensor.heads == 0 || tensor.rows == 0; }

} // namespace

int quantize_rows(const Tensor4 &from, const void *mean, int8_t *output, const Tensor4 &to, float *scale, int group, void *stream) {
    if (empty(from)) return cudaSuccess;
    const dim3 grid((from.rows + group - 1) / group, from.heads, from.batches);
    rows_kernel<<<grid, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(from, mean, output, to, scale, group);
    return cudaGetLastError();
}

int quantize_channels(const Tensor4 &from, uint8_t *output, const Tensor4 &to, float *mean, float *scale, float largest, void *stream) {
    if (from.batches == 0 || from.heads == 0) return cudaSuccess;
    const dim3 grid(1, from.heads, from.batches), block(from.head_dim, ROW_GROUPS);
    channels_kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(from, output, to, mean, scale, largest);
    return cudaGetLastError();
}

int subtract_mean(const Tensor4 &from, const void *mean, void *output, const Tensor4 &to, void *stream) {
    if (empty(from)) return cudaSuccess;
    const dim3 grid(from.rows, from.heads, from.batches);
    subtract_kernel<<<grid, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(from, mean, static_cast<__half *>(output), to);
    return cudaGetLastError();
}
