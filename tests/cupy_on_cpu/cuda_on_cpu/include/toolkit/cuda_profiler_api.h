// Declares what CuPy's runtime.pyx names and no header of nvidia-cuda-runtime-cu12 does.
#pragma once
#include <cuda_runtime_api.h>
extern "C" cudaError_t cudaProfilerStart();
extern "C" cudaError_t cudaProfilerStop();
