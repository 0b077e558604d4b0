// Runs a kernel for every thread of a grid. Stands behind the kernel's source.
#pragma once

#ifdef BARRIERS
// Threads of a block that wait for one another are coroutines.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>
#include <vector>

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    uint3 index;
    State state;
};
static ucontext_t scheduler;
static Thread *running;
static void *kernel_body;
static void (*call_body)(void *);

static void rest(State state) {
    Thread *me = running;
    me->state = state;
    swapcontext(&me->context, &scheduler);
}
static void wait_for_block() { rest(AT_BLOCK); }
static void wait_for_warp() { rest(AT_WARP); }
static void run_thread() {
    call_body(kernel_body);
    running->state = DONE;
}
// Lets those threads from first to last go on that wait in a state, if all that have not ended do. Whether there are any.
static bool release(std::vector<Thread> &threads, size_t first, size_t last, State state) {
    bool any = false;
    for (size_t i = first; i < last; ++i) {
        if (threads[i].state != state && threads[i].state != DONE) return false;
        any |= threads[i].state == state;
    }
    for (size_t i = first; i < last; ++i)
        if (threads[i].state == state) threads[i].state = READY;
    return any;
}
template <class Body> static void run_block(Body &body, const unsigned *sizes) {
    std::vector<Thread> threads(sizes[3] * sizes[4] * sizes[5]);
    kernel_body = &body;
    call_body = [](void *b) { (*(Body *)b)(); };
    unsigned n = 0;
    for (unsigned z = 0; z < sizes[5]; ++z)
        for (unsigned y = 0; y < sizes[4]; ++y)
            for (unsigned x = 0; x < sizes[3]; ++x) {
                Thread &thread = threads[n++];
                thread.stack.resize(1 << 15);
                thread.index = {x, y, z};
                thread.state = READY;
                getcontext(&thread.context);
                thread.context.uc_stack.ss_sp = thread.stack.data();
                thread.context.uc_stack.ss_size = thread.stack.size();
                thread.context.uc_link = &scheduler;
                makecontext(&thread.context, run_thread, 0);
            }
    for (bool going = true; going;) {
        for (Thread &thread : threads)
            if (thread.state == READY) {
                running = &thread;
                threadIdx = thread.index;
                swapcontext(&scheduler, &thread.context);
            }
        going = false;
        for (size_t i = 0; i < threads.size(); i += 32) going |= release(threads, i, std::min(i + 32, threads.size()), AT_WARP);
        if (!going) going = release(threads, 0, threads.size(), AT_BLOCK);
    }
    for (const Thread &thread : threads)
        if (thread.state != DONE) {
            fprintf(stderr, "CuPy on a CPU: threads wait for others that wait elsewhere\n");
            abort();
        }
}
#else
template <class Body> static void run_block(Body &body, const unsigned *sizes) {
    for (unsigned z = 0; z < sizes[5]; ++z)
        for (unsigned y = 0; y < sizes[4]; ++y)
            for (unsigned x = 0; x < sizes[3]; ++x) {
                threadIdx = {x, y, z};
                body();
            }
}
#endif

template <class Body> static void run_grid(Body body, const unsigned *sizes) {
#ifdef FLUSH  // subnormal numbers are read and written as zero
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
#endif
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    for (unsigned z = 0; z < sizes[2]; ++z)
        for (unsigned y = 0; y < sizes[1]; ++y)
            for (unsigned x = 0; x < sizes[0]; ++x) {
                blockIdx = {x, y, z};
                run_block(body, sizes);
            }
#ifdef FLUSH
    _mm_setcsr(before);
#endif
}
template <class... A, size_t... I> static void unpack(void (*kernel)(A...), void **params, const unsigned *sizes, std::index_sequence<I...>) {
    run_grid([=] { kernel(*(std::remove_const_t<std::remove_reference_t<A>> *)params[I]...); }, sizes);
}
template <class... A> static void launch(void (*kernel)(A...), void **params, const unsigned *sizes) {
    unpack(kernel, params, sizes, std::index_sequence_for<A...>());
}
