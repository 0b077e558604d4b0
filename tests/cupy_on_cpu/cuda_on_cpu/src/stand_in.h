// What the stand-in libraries share. All of it is in libcudart.so.12.
#pragma once
extern "C" {
int stand_in_device();                           // the current one of this thread
void stand_in_open(int device);                  // lets kernels into a device's memory, and other threads wait
void stand_in_close(int device);
void stand_in_note(const char *format, ...);     // an event of the trace
void stand_in_trace(int on);                     // begins a trace, or ends it
const char *stand_in_events();                   // those of the last trace, one a line
}

// While it lives, the memory of a device can be read and written.
struct Open {
    const int device;
    explicit Open(int device) : device(device) { stand_in_open(device); }
    ~Open() { stand_in_close(device); }
};
