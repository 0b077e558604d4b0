// A stand-in for libcudart.so.12: the runtime API that CuPy's runtime.pyx calls. Devices are ranges of host memory.
//
// All work is done at once in the calling thread, so that streams and events have nothing to do. What is not defined here, build.py
// defines as a function that returns cudaErrorNotSupported.
//
// An allocation ends where a page ends, and the page behind it is mapped to an empty file, as everything is that is not allocated:
// whoever touches that gets SIGBUS. The allocations themselves are closed to the host: it gets SIGSEGV outside a copy.
#include "stand_in.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace {
constexpr int MOST = 4;                       // devices
constexpr size_t SPACE = size_t(64) << 30;    // addresses of a device, of which none is memory until it is allocated
constexpr size_t PAGE = 4096;

struct Allocation {
    size_t size, pages;
};

struct Memory {
    char *base, *top;                             // all of a device, and the end of what was ever used
    int opened = 0;
    std::map<char *, Allocation> live;
    std::map<size_t, std::vector<char *>> freed;  // the first of so many pages, which may be used again
};

std::recursive_mutex lock;
thread_local cudaError_t last = cudaSuccess;
thread_local int current = 0;
bool tracing = false;
std::string events;

int device_count() {
    static const char *given = getenv("CUDA_ON_CPU_DEVICES");
    static const int count = given ? atoi(given) : 1;
    return count < 1 ? 1 : count > MOST ? MOST : count;
}

int nothing() {
    static const int file = memfd_create("nothing", MFD_CLOEXEC);
    return file;
}

Memory *memories() {
    static Memory *all = [] {
        Memory *made = new Memory[MOST];
        for (int device = 0; device < device_count(); ++device) {
            Memory &m = made[device];
            m.base = m.top = (char *)mmap(nullptr, SPACE, PROT_NONE, MAP_SHARED | MAP_NORESERVE, nothing(), 0);
            if (m.base == MAP_FAILED) {
                perror("CuPy on a CPU: no addresses for the memory of a device");
                abort();
            }
        }
        return made;
    }();
    return all;
}

cudaError_t failed(cudaError_t error) {
    last = error;
    return error;
}

// The device to which an address belongs; -1 for the host.
int owner(const void *p) {
    for (int device = 0; device < device_count(); ++device) {
        const Memory &m = memories()[device];
        if ((char *)p >= m.base && (char *)p < m.base + SPACE) return device;
    }
    return -1;
}

// Whether a range lies in one allocation of a device.
bool allocated(const void *p, size_t size) {
    const int device = owner(p);
    if (device < 0) return false;
    const auto &live = memories()[device].live;
    auto it = live.upper_bound((char *)p);
    if (it == live.begin()) return false;
    --it;
    return (char *)p + size <= it->first + it->second.size;
}

void *allocate(size_t size) {
    std::lock_guard<std::recursive_mutex> hold(lock);
    Memory &m = memories()[current];
    const size_t pages = (size + PAGE - 1) / PAGE;
    char *at = m.top;
    auto &freed = m.freed[pages];
    if (!freed.empty()) {
        at = freed.back();
        freed.pop_back();
    } else {
        if (m.top + (pages + 1) * PAGE > m.base + SPACE) return nullptr;
        m.top += (pages + 1) * PAGE;
    }
    const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) return nullptr;
    memset(at, 0xff, pages * PAGE);  // NaN, in each format
    mprotect(at, pages * PAGE, PROT_NONE);
    char *p = at + pages * PAGE - size;
    m.live[p] = {size, pages};
    return p;
}

bool release(void *p) {
    std::lock_guard<std::recursive_mutex> hold(lock);
    const int device = owner(p);
    if (device < 0) return false;
    Memory &m = memories()[device];
    auto it = m.live.find((char *)p);
    if (it == m.live.end()) return false;
    const auto [size, pages] = it->second;
    char *at = it->first + size - pages * PAGE;
    mmap(at, pages * PAGE, PROT_NONE, MAP_FIXED | MAP_SHARED | MAP_NORESERVE, nothing(), at - m.base);
    m.freed[pages].push_back(at);
    m.live.erase(it);
    return true;
}

// Opens the devices to which the ends of a copy belong.
struct Ends {
    const int devices[2];
    Ends(const void *to, const void *from) : devices{owner(to), owner(from)} {
        for (int device : devices) if (device >= 0) stand_in_open(device);
    }
    ~Ends() {
        for (int device : devices) if (device >= 0) stand_in_close(device);
    }
};

cudaError_t copy(void *to, const void *from, size_t size, cudaMemcpyKind kind, const char *when) {
    if (!size) return cudaSuccess;
    const bool to_device = owner(to) >= 0, from_device = owner(from) >= 0;
    if (kind != cudaMemcpyDefault) {
        if (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice)) return failed(cudaErrorInvalidValue);
        if (from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice)) return failed(cudaErrorInvalidValue);
    }
    if ((to_device && !allocated(to, size)) || (from_device && !allocated(from, size))) return failed(cudaErrorInvalidValue);
    stand_in_note("copy %s%s, %zu bytes", to_device ? from_device ? "on devices" : "to device" : "to host", when, size);
    Ends open(to, from);
    memmove(to, from, size);
    return cudaSuccess;
}
}  // namespace

extern "C" {
int stand_in_device() { return current; }
void stand_in_open(int device) {
    lock.lock();
    Memory &m = memories()[device];
    if (m.opened++ == 0 && m.top > m.base) mprotect(m.base, m.top - m.base, PROT_READ | PROT_WRITE);
}
void stand_in_close(int device) {
    Memory &m = memories()[device];
    if (--m.opened == 0 && m.top > m.base) mprotect(m.base, m.top - m.base, PROT_NONE);
    lock.unlock();
}
void stand_in_note(const char *format, ...) {
    if (!tracing) return;
    char line[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    events += std::string(line) + "\n";
}
void stand_in_trace(int on) {
    tracing = on;
    if (on) events.clear();
}
const char *stand_in_events() { return events.c_str(); }

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorNotSupported: return "cudaErrorNotSupported";
        default: return "cudaError";
    }
}
const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorNotSupported ? "not done by CUDA on a CPU" : cudaGetErrorName(error); }
cudaError_t cudaGetLastError() {
    const cudaError_t error = last;
    last = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last; }

// Devices.

cudaError_t cudaDriverGetVersion(int *version) { *version = 12090; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 12090; return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int *count) { *count = device_count(); return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = current; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { stand_in_note("wait for the device"); return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = 8; break;
        case cudaDevAttrMultiProcessorCount: *value = 2; break;
        case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *value = 1024; break;
        case cudaDevAttrMaxBlockDimZ: *value = 64; break;
        case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
        case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
        default: *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp *p, int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "CPU, emulated");  // by which xopt.backends knows that it is no GPU
    p->major = 8;
    p->multiProcessorCount = 2;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->totalGlobalMem = SPACE;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = 65536;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    return cudaSuccess;
}
// No device reads the memory of another: CuPy then refuses what would, and says so.
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) { *can = 0; return cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) { snprintf(text, length, "0000:%02x:00.0", device); return cudaSuccess; }

// Memory.

cudaError_t cudaMalloc(void **p, size_t size) {
    *p = size ? allocate(size) : nullptr;
    return *p || !size ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *p) { return !p || release(p) ? cudaSuccess : failed(cudaErrorInvalidValue); }
cudaError_t cudaHostAlloc(void **p, size_t size, unsigned) { *p = malloc(size ? size : 1); return cudaSuccess; }
cudaError_t cudaFreeHost(void *p) { free(p); return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free_, size_t *total) {
    std::lock_guard<std::recursive_mutex> hold(lock);
    const Memory &m = memories()[current];
    *total = SPACE;
    *free_ = SPACE - (m.top - m.base);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind) { return copy(to, from, size, kind, " and wait"); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t) { return copy(to, from, size, kind, ""); }
cudaError_t cudaMemcpyPeer(void *to, int, const void *from, int, size_t size) { return copy(to, from, size, cudaMemcpyDeviceToDevice, ""); }
cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t size, cudaStream_t) { return copy(to, from, size, cudaMemcpyDeviceToDevice, ""); }
cudaError_t cudaMemset(void *p, int value, size_t size) {
    if (!size) return cudaSuccess;
    if (!allocated(p, size)) return failed(cudaErrorInvalidValue);
    stand_in_note("set %zu bytes", size);
    Open open(owner(p));
    memset(p, value, size);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t) { return cudaMemset(p, value, size); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->device = owner(p);
    a->type = a->device >= 0 ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    if (a->device >= 0) a->devicePointer = (void *)p;
    else { a->hostPointer = (void *)p; a->device = -2; }
    return cudaSuccess;
}

// Streams and events. Each is a number of its own, nothing else.

cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = (cudaStream_t) new int(current); return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned, int) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { delete (int *)stream; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { stand_in_note("wait for a stream"); return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status) { *status = cudaStreamCaptureStatusNone; return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = (cudaEvent_t) new int(current); return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { delete (int *)event; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { stand_in_note("wait for an event"); return cudaSuccess; }
}
