// What the headers of CUDA's runtime need of those of its compiler, which are another 40 MB to download.
#pragma once
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __host__
#define __device__
#define __device_builtin__
#define __cudart_builtin__
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
