// A stand-in for libcudart.so.12: the runtime API that CuPy's runtime.pyx calls. Devices are ranges of host memory.
//
// All work is done at once in the calling thread, so that streams and events have nothing to do. What is not defined here, build.py
// defines as a function that returns cudaErrorNotSupported.
//
// An allocation ends where a page ends. Nothing of a device can be touched by the host outside a copy: whoever does gets SIGSEGV.
// While a kernel runs, the first touch of each allocation of its device opens it; that of anything else ends the process too. To open
// all allocations for each kernel would take longer than all the rest.
#include "stand_in.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <deque>
#include <map>
#include <mutex>
#include <pthread.h>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace {
constexpr int MOST = 4;                       // devices
constexpr size_t SPACE = size_t(64) << 30;    // addresses of a device, of which none is memory until it is allocated
constexpr size_t PAGE = 4096;
constexpr int RESERVED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

constexpr size_t LARGE = 1 << 20;             // bytes from which on freed memory is given back; it takes time
constexpr size_t KEPT = 64;                   // freed ranges of a size that are not used again yet, so that a late touch shows

struct Pages {
    char *first;
    size_t bytes;
    int protect(int access) const { return mprotect(first, bytes, access); }
};

struct Allocation {
    size_t size;
    Pages pages;
};

struct Memory {
    char *base, *top;  // all of a device, and the end of what was ever used
    std::map<char *, Allocation> live;
    std::map<size_t, std::deque<char *>> freed;  // of so many bytes
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

int capability() {
    const char *given = getenv("CUDA_ON_CPU_LISTING");  // such as 90; there is no machine code for any where kernels run
    return given ? atoi(given) / 10 : 8;
}

Memory *memories() {
    static Memory *all = [] {
        Memory *made = new Memory[MOST];
        for (int device = 0; device < device_count(); ++device) {
            Memory &m = made[device];
            m.base = m.top = (char *)mmap(nullptr, SPACE, PROT_NONE, RESERVED, -1, 0);
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

// The allocation of a device in which an address lies; null where there is none.
const Allocation *allocation_at(int device, const void *p) {
    if (device < 0) return nullptr;
    const auto &live = memories()[device].live;
    auto it = live.upper_bound((char *)p);
    if (it == live.begin()) return nullptr;
    --it;
    return (char *)p < it->first + it->second.size ? &it->second : nullptr;
}

bool allocated(const void *p, size_t size) {
    const Allocation *found = allocation_at(owner(p), p);
    return found && (char *)p + size <= found->pages.first + found->pages.bytes;
}

void *allocate(size_t size) {
    std::lock_guard<std::recursive_mutex> hold(lock);
    Memory &m = memories()[current];
    Pages pages{m.top, (size + PAGE - 1) / PAGE * PAGE};
    auto &freed = m.freed[pages.bytes];
    if (freed.size() > KEPT) {
        pages.first = freed.front();
        freed.pop_front();
    } else {
        if (m.top + pages.bytes + PAGE > m.base + SPACE) return nullptr;
        m.top += pages.bytes + PAGE;  // the last page is never opened
    }
    if (pages.protect(PROT_READ | PROT_WRITE)) return nullptr;
    memset(pages.first, 0xff, pages.bytes);  // NaN, in each format
    pages.protect(PROT_NONE);
    char *p = pages.first + pages.bytes - size;
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
    const Pages pages = it->second.pages;
    if (pages.bytes > LARGE) mmap(pages.first, pages.bytes, PROT_NONE, MAP_FIXED | RESERVED, -1, 0);  // gives the memory back
    m.freed[pages.bytes].push_back(pages.first);
    m.live.erase(it);
    return true;
}

// While a kernel runs: its device and thread, what it has touched, and whose SIGSEGV is then.
int running;
pthread_t runner;
std::vector<Pages> touched;
struct sigaction before;

void on_touch(int, siginfo_t *info, void *) {
    const Allocation *found = pthread_equal(runner, pthread_self()) ? allocation_at(running, info->si_addr) : nullptr;
    if (found) {
        found->pages.protect(PROT_READ | PROT_WRITE);
        touched.push_back(found->pages);
        return;
    }
    const char says[] = "CuPy on a CPU: a kernel touches what is not allocated on its device\n";
    if (write(2, says, sizeof says - 1) < 0) {}
    sigaction(SIGSEGV, &before, nullptr);  // which the same touch then reaches
}

// Opens an allocation to a copy.
struct End {
    const Allocation *of;
    explicit End(const void *p) : of(allocation_at(owner(p), p)) {
        if (of) of->pages.protect(PROT_READ | PROT_WRITE);
    }
    ~End() {
        if (of) of->pages.protect(PROT_NONE);
    }
};

cudaError_t copy(void *to, const void *from, size_t size, cudaMemcpyKind kind, const char *when) {
    if (!size) return cudaSuccess;
    std::lock_guard<std::recursive_mutex> hold(lock);
    const bool to_device = owner(to) >= 0, from_device = owner(from) >= 0;
    if (kind != cudaMemcpyDefault) {
        if (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice)) return failed(cudaErrorInvalidValue);
        if (from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice)) return failed(cudaErrorInvalidValue);
    }
    if ((to_device && !allocated(to, size)) || (from_device && !allocated(from, size))) return failed(cudaErrorInvalidValue);
    stand_in_note("copy %s%s, %zu bytes", to_device ? from_device ? "on devices" : "to device" : "to host", when, size);
    const End destination(to), source(from);
    memmove(to, from, size);
    return cudaSuccess;
}
}  // namespace

extern "C" {
int stand_in_device() { return current; }
void stand_in_open(int device) {
    lock.lock();
    running = device;
    runner = pthread_self();
    touched.reserve(1000);
    struct sigaction action = {};
    action.sa_sigaction = on_touch;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before);
}
void stand_in_close() {
    sigaction(SIGSEGV, &before, nullptr);
    for (const Pages &pages : touched) pages.protect(PROT_NONE);
    touched.clear();
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
        case cudaDevAttrComputeCapabilityMajor: *value = capability(); break;
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
    p->major = capability();
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
    std::lock_guard<std::recursive_mutex> hold(lock);
    if (!allocated(p, size)) return failed(cudaErrorInvalidValue);
    stand_in_note("set %zu bytes", size);
    const End destination(p);
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
