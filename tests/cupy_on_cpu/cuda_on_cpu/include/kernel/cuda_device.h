// CUDA C++ for g++: what a kernel may use without including it. Stands before the kernel's source.
#pragma once
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <math.h>
#include <type_traits>
#include <utility>
#include <xmmintrin.h>

#define __CUDACC__ 1
#define __CUDACC_VER_MAJOR__ 12
#define __CUDACC_VER_MINOR__ 9
#define __global__ static __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct float2 {
    float x, y;
};
struct double2 {
    double x, y;
};
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

#ifdef BARRIERS
static void wait_for_block();  // see cuda_launch.h
static void wait_for_warp();
static inline void __syncthreads() { wait_for_block(); }
static inline void __syncwarp(unsigned = 0xffffffff) { wait_for_warp(); }
// What another thread of the warp passes; one's own where there is no such thread.
template <class T> static inline T exchange(T x, bool there, int other) {
    static unsigned long long passed[1024];
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    memcpy(&passed[thread], &x, sizeof x);
    wait_for_warp();
    if (there) memcpy(&x, &passed[thread / 32 * 32 + other], sizeof x);
    wait_for_warp();
    return x;
}
static inline int lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }
template <class T> static inline T __shfl_up_sync(unsigned, T x, int by, int = 32) { return exchange(x, lane() >= by, lane() - by); }
template <class T> static inline T __shfl_xor_sync(unsigned, T x, int by, int = 32) { return exchange(x, true, lane() ^ by); }
#endif
static inline void __threadfence() {}

template <class To, class From> static inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __int_as_float(int x) { return same_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static inline int __float_as_int(float x) { return same_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
static inline int __double2hiint(double x) { return (int)(__double_as_longlong(x) >> 32); }
static inline int __double2loint(double x) { return (int)__double_as_longlong(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline float rsqrtf(float x) { return (float)(1 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
template <class T> static inline T atomicAdd(T *p, T x) {
    const T old = *p;
    *p = old + x;
    return old;
}
template <class T> static inline T atomicCAS(T *p, T old, T x) {
    const T found = *p;
    if (found == old) *p = x;
    return found;
}

// As CUDA has them: a number wins over NaN.
#define MIN_AND_MAX(T) \
    static inline T min(T x, T y) { return y < x ? y : x; } \
    static inline T max(T x, T y) { return x < y ? y : x; }
MIN_AND_MAX(int) MIN_AND_MAX(unsigned) MIN_AND_MAX(long) MIN_AND_MAX(unsigned long) MIN_AND_MAX(long long) MIN_AND_MAX(unsigned long long)
static inline float min(float x, float y) { return fminf(x, y); }
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }
