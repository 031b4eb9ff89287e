// Stands in for the CUDA runtime's header.
#pragma once
typedef struct CUstream_st *cudaStream_t;
extern "C" int cudaGetLastError();
