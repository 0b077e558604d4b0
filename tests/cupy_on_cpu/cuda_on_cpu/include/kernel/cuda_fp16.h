// __half for g++, as far as CuPy's float16.cuh uses it: _Float16, which converts with one rounding.
#pragma once
struct __half_raw {
    unsigned short x;
};
struct __half {
    _Float16 data;
    __half() = default;
    __half(float x) : data((_Float16)x) {}
    __half(double x) : data((_Float16)x) {}
    __half(int x) : data((_Float16)x) {}
    __half(unsigned x) : data((_Float16)x) {}
    __half(long long x) : data((_Float16)x) {}
    __half(unsigned long long x) : data((_Float16)x) {}
    __half(const __half_raw &raw) { memcpy(&data, &raw, 2); }
    operator float() const { return (float)data; }
    operator __half_raw() const {
        __half_raw raw;
        memcpy(&raw, &data, 2);
        return raw;
    }
};
typedef __half half;
static inline unsigned short __half_as_ushort(__half x) { return __half_raw(x).x; }
static inline __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }
static inline float __half2float(__half x) { return x; }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half __float2half(float x) { return __half(x); }
static inline __half __double2half(double x) { return __half(x); }
static inline bool __hisnan(__half x) { return isnan((float)x); }
static inline int __hisinf(__half x) { return isinf((float)x) ? ((float)x > 0 ? 1 : -1) : 0; }
