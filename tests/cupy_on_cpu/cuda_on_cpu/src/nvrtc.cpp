// A stand-in for libnvrtc.so.12: hands a program to compile.py, which answers with a shared object for the CPU.
// That is called in this process, as a Python of its own would take as long to start as the compiler takes.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace {
enum { SUCCESS = 0, OUT_OF_MEMORY = 1, COMPILATION = 6, BUILTIN_OPERATION_FAILURE = 7 };  // nvrtcResult

int (*compile)(const char *folder);

struct Program {
    std::string source, log, image;
};

std::string read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}
void write(const std::string &path, const std::string &text) { std::ofstream(path, std::ios::binary) << text; }
}  // namespace

extern "C" {
void stand_in_compiler(int (*given)(const char *)) { compile = given; }
const char *nvrtcGetErrorString(int error) { return error == SUCCESS ? "NVRTC_SUCCESS" : error == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcVersion(int *major, int *minor) { *major = 12; *minor = 9; return SUCCESS; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 1; return SUCCESS; }
int nvrtcGetSupportedArchs(int *archs) { *archs = 80; return SUCCESS; }
int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char **, const char **) {
    *program = new Program{source, "", ""};
    return SUCCESS;
}
int nvrtcDestroyProgram(void **program) {
    delete (Program *)*program;
    *program = nullptr;
    return SUCCESS;
}
int nvrtcAddNameExpression(void *, const char *) { return BUILTIN_OPERATION_FAILURE; }  // only for C++ templates in a RawModule
int nvrtcGetLoweredName(void *, const char *, const char **) { return BUILTIN_OPERATION_FAILURE; }
int nvrtcCompileProgram(void *handle, int count, const char **options) {
    Program *program = (Program *)handle;
    char folder[] = "/tmp/cuda-on-cpu.XXXXXX";
    if (!mkdtemp(folder)) return OUT_OF_MEMORY;
    const std::string at = std::string(folder) + "/";
    std::string lines;
    for (int i = 0; i < count; ++i) lines += std::string(options[i]) + "\n";
    write(at + "options", lines);
    write(at + "source", program->source);
    const int status = compile(folder);
    program->log = read(at + "log");
    program->image = read(at + "image");
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return status == 0 && !program->image.empty() ? SUCCESS : COMPILATION;
}
// The image is what CuPy takes for a cubin, or for PTX. CuPy drops the last byte, so one is added.
int nvrtcGetCUBINSize(void *program, size_t *size) { *size = ((Program *)program)->image.size() + 1; return SUCCESS; }
int nvrtcGetCUBIN(void *program, char *out) {
    const std::string &image = ((Program *)program)->image;
    memcpy(out, image.c_str(), image.size() + 1);
    return SUCCESS;
}
int nvrtcGetPTXSize(void *program, size_t *size) { return nvrtcGetCUBINSize(program, size); }
int nvrtcGetPTX(void *program, char *out) { return nvrtcGetCUBIN(program, out); }
int nvrtcGetProgramLogSize(void *program, size_t *size) { *size = ((Program *)program)->log.size() + 1; return SUCCESS; }
int nvrtcGetProgramLog(void *program, char *out) {
    const std::string &log = ((Program *)program)->log;
    memcpy(out, log.c_str(), log.size() + 1);
    return SUCCESS;
}
}
