// A stand-in for libcuda.so.1: what CuPy's driver.pyx looks up. A module is a shared object for the CPU, a launch a loop over the grid.
#include "stand_in.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda.h>
#include <dlfcn.h>
#include <string>
#include <unistd.h>

namespace {
const char MAGIC[] = "CPU-CUDA";  // then the length as uint64, then the shared object: see compile.py

struct Module {
    void *object;
    int device;
};
struct Function {
    void (*launch)(void **, const unsigned *);
    std::string name;
    int device;
};

// Whether NVIDIA's own NVRTC compiles, for the GPU of this compute capability: what it makes runs nowhere, and a launch does nothing.
bool listing() { return getenv("CUDA_ON_CPU_LISTING"); }
void nothing(void **, const unsigned *) {}

CUcontext context_of(int device) { return (CUcontext)(intptr_t)(0x1000 + device); }
}  // namespace

#undef cuDevicePrimaryCtxRelease
#undef cuCtxCreate
#undef cuCtxDestroy
#undef cuModuleGetGlobal
extern "C" {
CUresult cuGetErrorName(CUresult error, const char **text) {
    static thread_local char name[40];
    snprintf(name, sizeof name, "CUDA_ERROR_%d", (int)error);
    *text = name;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    switch (error) {
        case CUDA_ERROR_INVALID_IMAGE: *text = "no module of CUDA on a CPU"; break;
        case CUDA_ERROR_NOT_FOUND: *text = "no function of that name"; break;
        case CUDA_ERROR_INVALID_HANDLE: *text = "a function or a stream of another device"; break;
        default: *text = "an error of CUDA on a CPU";
    }
    return CUDA_SUCCESS;
}
CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuGetExportTable(const void **, const CUuuid *) { return CUDA_ERROR_NOT_FOUND; }  // NVRTC looks for one where there is a driver
CUresult cuDriverGetVersion(int *version) { *version = 12090; return CUDA_SUCCESS; }
// The runtime's current device has its one context.
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = context_of(stand_in_device()); return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxCreate_v2(CUcontext *, unsigned, CUdevice) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxDestroy_v2(CUcontext) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = stand_in_device(); return CUDA_SUCCESS; }
CUresult cuStreamGetCtx(CUstream, CUcontext *context) { return cuCtxGetCurrent(context); }

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    if (listing()) {
        *module = (CUmodule) new Module{nullptr, stand_in_device()};
        return CUDA_SUCCESS;
    }
    if (memcmp(image, MAGIC, 8)) return CUDA_ERROR_INVALID_IMAGE;
    uint64_t left;
    memcpy(&left, (const char *)image + 8, 8);
    char path[] = "/tmp/cuda-on-cpu.XXXXXX";  // a name of its own, as dlopen takes one name for one object
    const int file = mkstemp(path);
    if (file < 0) return CUDA_ERROR_UNKNOWN;
    for (const char *from = (const char *)image + 16; left;) {
        const ssize_t written = write(file, from, left);
        if (written <= 0) return CUDA_ERROR_UNKNOWN;
        from += written;
        left -= written;
    }
    close(file);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) fprintf(stderr, "CuPy on a CPU: %s\n", dlerror());
    unlink(path);
    if (!object) return CUDA_ERROR_INVALID_IMAGE;
    *module = (CUmodule) new Module{object, stand_in_device()};
    return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { delete (Module *)module; return CUDA_SUCCESS; }  // stays mapped, as its functions may still be known
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    const Module *of = (Module *)module;
    void *launch = listing() ? (void *)nothing : dlsym(of->object, (std::string("launch_") + name).c_str());
    if (!launch) return CUDA_ERROR_NOT_FOUND;
    *function = (CUfunction) new Function{(void (*)(void **, const unsigned *))launch, name, of->device};
    return CUDA_SUCCESS;
}
CUresult cuModuleGetGlobal_v2(CUdeviceptr *, size_t *, CUmodule, const char *) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, CUstream stream, void **params, void **) {
    const Function *function = (Function *)f;
    if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024 || gy > 65535 || gz > 65535) return CUDA_ERROR_INVALID_VALUE;
    const int device = stand_in_device();
    const bool default_stream = (uintptr_t)stream <= 2;  // its names are numbers
    if (function->device != device || (!default_stream && *(int *)stream != device)) return CUDA_ERROR_INVALID_HANDLE;
    stand_in_note("launch %s", function->name.c_str());
    const unsigned sizes[6] = {gx, gy, gz, bx, by, bz};
    Open open(device);
    function->launch(params, sizes);
    return CUDA_SUCCESS;
}
CUresult cuLaunchCooperativeKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **) {
    return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction, int, size_t) { *blocks = 1; return CUDA_SUCCESS; }
CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction, CUoccupancyB2DSize, size_t, int) {
    *grid = 2;
    *block = 256;
    return CUDA_SUCCESS;
}
}
