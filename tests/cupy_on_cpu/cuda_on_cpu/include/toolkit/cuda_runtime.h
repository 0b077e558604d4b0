// In the place of the header for CUDA's own compiler: g++ gets the functions.
#pragma once
#include <cuda_runtime_api.h>
#include <driver_functions.h>

// CuPy 13 calls the overload of C++.
static inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, cudaGraphNode_t *, char *, size_t) { return cudaErrorNotSupported; }
