#include <cuda_runtime.h>
#include "kernels.h"

// As assertions do, it puts the path of this file into the object.
extern const char *const shift_source = __FILE__;

__global__ void shift_kernel(double value, double *result) { *result = value + 1; }

double shift(double value) {
    double result = 0;
    shift_kernel(value, &result);
    return cudaGetLastError() ? -1 : result;
}
