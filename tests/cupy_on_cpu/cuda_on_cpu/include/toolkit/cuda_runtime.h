// In the place of the header for CUDA's own compiler: g++ gets the functions.
#pragma once
#include <cuda_runtime_api.h>
#include <driver_functions.h>
