#include <cuda_runtime.h>
#include "kernels.h"

// As assertions do, it puts the path of this file into the object.
extern const char *const total_source = __FILE__;

__global__ void total_kernel(double value, double *result) { *result = scale(shift(value)); }

double total(double value) {
    double result = 0;
    total_kernel(value, &result);
    return cudaGetLastError() ? -1 : result;
}
