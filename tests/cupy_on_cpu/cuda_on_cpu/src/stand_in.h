// What the stand-in libraries share. All of it is in libcudart.so.12.
#pragma once
extern "C" {
int stand_in_device();                           // the current one of this thread
void stand_in_open(int device);                  // lets a kernel into a device's memory, and other threads wait
void stand_in_close();
void stand_in_note(const char *format, ...);     // an event of the trace
void stand_in_trace(int on);                     // begins a trace, or ends it
const char *stand_in_events();                   // those of the last trace, one a line
}

// While it lives, this thread is a kernel of a device.
struct Open {
    explicit Open(int device) { stand_in_open(device); }
    ~Open() { stand_in_close(); }
};
