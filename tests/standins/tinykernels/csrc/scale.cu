#include <cuda_runtime.h>
#include "kernels.h"

// As assertions do, it puts the path of this file into the object.
extern const char *const scale_source = __FILE__;

__global__ void scale_kernel(double value, double *result) { *result = 2 * value; }

double scale(double value) {
    double result = 0;
    scale_kernel(value, &result);
    return cudaGetLastError() ? -1 : result;
}
