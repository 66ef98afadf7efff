/* A libcuda.so.1 for tests: the driver's functions that the backend calls, on the host. What they take and give is told in NVIDIA's "CUDA
   Driver API"; here it is checked as far as can be: handles are ones that were given out, memory is memory that was, and what is
   captured is not done until its graph is launched.

   Images of modules are not code: "path arguments", a library made of kernels and the shim, and how many arguments its kernel takes. */
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500 };
using Address = unsigned long long;
using Work = std::function<int()>;

struct Stream { bool capturing = false; std::vector<Work> noted; };
struct Graph { std::vector<Work> works; };
struct Event { double seconds = 0; };
struct Module { void *library; int arguments; };
struct Function { const char *(*launch)(const unsigned *, void **); int arguments; };

constexpr size_t TOTAL = size_t(1) << 33;
std::set<void *> streams, graphs, execs, events, modules;
std::map<Address, size_t> memory, pinned;
std::map<void *, Function *> functions;
int contexts = 0, initialized = 0;
thread_local int current = 0;
std::string failure;

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

bool inside(const std::map<Address, size_t> &all, Address at, size_t size) {
    auto next = all.upper_bound(at);
    if (next == all.begin()) return false;
    --next;
    return at + size <= next->first + next->second;
}

int put(void *stream, Work work) {
    if (!current) return INVALID_CONTEXT;
    if (!streams.count(stream)) return INVALID_HANDLE;
    auto &queue = *(Stream *)stream;
    if (!queue.capturing) return work();
    queue.noted.push_back(work);
    return SUCCESS;
}

template <class T> int give(std::set<void *> &all, T **out) {
    if (!current) return INVALID_CONTEXT;
    *out = new T();
    all.insert(*out);
    return SUCCESS;
}
template <class T> int take(std::set<void *> &all, T *handle) {
    if (!all.erase(handle)) return INVALID_HANDLE;
    delete handle;
    return SUCCESS;
}

int init(unsigned flags) { return initialized = flags == 0, flags ? INVALID_VALUE : SUCCESS; }
int device_count(int *count) { return *count = 1, initialized ? SUCCESS : NOT_INITIALIZED; }
int device_get(int *device, int ordinal) { return *device = 7, ordinal ? INVALID_VALUE : SUCCESS; }
int device_name(char *name, int size, int device) { return snprintf(name, size, "host"), device == 7 ? SUCCESS : INVALID_VALUE; }
int device_attribute(int *value, int attribute, int) {
    static const std::map<int, int> known{{75, 8}, {76, 9}, {16, 4}, {36, 1000000}, {37, 384}};
    if (!known.count(attribute)) return INVALID_VALUE;
    return *value = known.at(attribute), SUCCESS;
}
int driver_version(int *version) { return *version = 13020, SUCCESS; }
int context_retain(void **context, int device) { return contexts++, *context = &contexts, device == 7 ? SUCCESS : INVALID_VALUE; }
int context_release(int) { return contexts-- > 0 ? SUCCESS : INVALID_CONTEXT; }
int context_current(void *context) { return current = context == &contexts && contexts > 0, current ? SUCCESS : INVALID_CONTEXT; }

int memory_info(size_t *free, size_t *total) {
    *total = *free = TOTAL;
    for (auto &[at, size] : memory) *free -= size;
    return current ? SUCCESS : INVALID_CONTEXT;
}
int memory_allocate(Address *at, size_t size) {
    if (!current) return INVALID_CONTEXT;
    if (!size) return INVALID_VALUE;
    if (size > TOTAL) return OUT_OF_MEMORY;
    *at = (Address)aligned_alloc(256, (size + 255) / 256 * 256);
    memset((void *)*at, 0xa5, size);
    memory[*at] = size;
    return SUCCESS;
}
int memory_free(Address at) {
    if (!memory.erase(at)) return INVALID_VALUE;
    free((void *)at);
    return SUCCESS;
}
int host_allocate(void **at, size_t size, unsigned flags) {
    if (!size || flags > 7) return INVALID_VALUE;
    *at = calloc(1, size);
    pinned[(Address)*at] = size;
    return SUCCESS;
}
int host_free(void *at) {
    if (!pinned.erase((Address)at)) return INVALID_VALUE;
    free(at);
    return SUCCESS;
}
int set_bytes(Address at, unsigned char value, size_t size, void *stream) {
    return put(stream, [=] { return inside(memory, at, size) ? memset((void *)at, value, size), SUCCESS : INVALID_VALUE; });
}
int copy_in(Address to, const void *from, size_t size, void *stream) {
    return put(stream, [=] { return inside(memory, to, size) ? memcpy((void *)to, from, size), SUCCESS : INVALID_VALUE; });
}
int copy_out(void *to, Address from, size_t size, void *stream) {
    return put(stream, [=] { return inside(memory, from, size) ? memcpy(to, (void *)from, size), SUCCESS : INVALID_VALUE; });
}
int copy_within(Address to, Address from, size_t size, void *stream) {
    return put(stream, [=] {
        bool known = inside(memory, from, size) && inside(memory, to, size);
        return known ? memcpy((void *)to, (void *)from, size), SUCCESS : INVALID_VALUE;
    });
}

int stream_create(void **stream, unsigned flags) { return flags > 1 ? INVALID_VALUE : give(streams, (Stream **)stream); }
int stream_destroy(void *stream) { return take(streams, (Stream *)stream); }
int stream_synchronize(void *stream) { return !streams.count(stream) || ((Stream *)stream)->capturing ? INVALID_HANDLE : SUCCESS; }
int stream_wait(void *stream, void *event, unsigned) { return streams.count(stream) && events.count(event) ? SUCCESS : INVALID_HANDLE; }
int capture_begin(void *stream, int mode) {
    auto &queue = *(Stream *)stream;
    if (queue.capturing || mode < 0 || mode > 2) return INVALID_VALUE;
    queue.capturing = true;
    return SUCCESS;
}
int capture_end(void *stream, void **graph) {
    auto &queue = *(Stream *)stream;
    if (!queue.capturing) return INVALID_VALUE;
    queue.capturing = false;
    int result = give(graphs, (Graph **)graph);
    if (result == SUCCESS) ((Graph *)*graph)->works = std::move(queue.noted);
    queue.noted.clear();
    return result;
}
int graph_instantiate(void **exec, void *graph, unsigned long long flags) {
    if (!graphs.count(graph) || flags) return INVALID_VALUE;
    int result = give(execs, (Graph **)exec);
    if (result == SUCCESS) *(Graph *)*exec = *(Graph *)graph;
    return result;
}
int graph_destroy(void *graph) { return take(graphs, (Graph *)graph); }
int exec_destroy(void *exec) { return take(execs, (Graph *)exec); }
int graph_launch(void *exec, void *stream) {
    if (!execs.count(exec)) return INVALID_HANDLE;
    return put(stream, [exec] {
        for (auto &work : ((Graph *)exec)->works)
            if (int result = work()) return result;
        return (int)SUCCESS;
    });
}

int event_create(void **event, unsigned flags) { return flags ? INVALID_VALUE : give(events, (Event **)event); }
int event_destroy(void *event) { return take(events, (Event *)event); }
int event_record(void *event, void *stream) {
    if (!events.count(event) || !streams.count(stream)) return INVALID_HANDLE;
    return ((Event *)event)->seconds = now(), SUCCESS;
}
int event_synchronize(void *event) { return events.count(event) ? SUCCESS : INVALID_HANDLE; }
int event_elapsed(float *milliseconds, void *start, void *end) {
    if (!events.count(start) || !events.count(end)) return INVALID_HANDLE;
    return *milliseconds = float(1e3 * (((Event *)end)->seconds - ((Event *)start)->seconds)), SUCCESS;
}

int module_load(void **module, const void *image) {
    char path[512];
    int arguments;
    if (sscanf((const char *)image, "%511s %d", path, &arguments) != 2) return INVALID_VALUE;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return NOT_FOUND;
    int result = give(modules, (Module **)module);
    if (result == SUCCESS) *(Module *)*module = {library, arguments};
    return result;
}
int module_unload(void *module) { return take(modules, (Module *)module); }
int module_function(void **function, void *module, const char *name) {
    if (!modules.count(module)) return INVALID_HANDLE;
    auto launch = (const char *(*)(const unsigned *, void **))dlsym(((Module *)module)->library, (std::string("launch_") + name).c_str());
    if (!launch) return NOT_FOUND;
    auto *found = new Function{launch, ((Module *)module)->arguments};
    functions[found] = found;
    return *function = found, SUCCESS;
}
int launch(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
           void **arguments, void **extra) {
    if (!functions.count(function) || extra || shared) return INVALID_HANDLE;
    if (!gx || !gy || !gz || bx * by * bz > 1024 || !bx) return INVALID_VALUE;
    std::vector<uint64_t> values(functions[function]->arguments);  // the driver copies arguments when it is called
    for (size_t i = 0; i < values.size(); i++) memcpy(&values[i], arguments[i], 8);
    return put(stream, [=]() mutable {
        unsigned dims[6]{gx, gy, gz, bx, by, bz};
        std::vector<void *> places;
        for (auto &value : values) places.push_back(&value);
        const char *error = functions[function]->launch(dims, places.data());
        if (error) failure = error;
        return error ? 719 : SUCCESS;
    });
}
int error_string(int result, const char **text) {
    *text = result == OUT_OF_MEMORY ? "out of memory" : result == 719 ? failure.c_str() : "something is wrong";
    return SUCCESS;
}

const std::map<std::string, void *> FUNCTIONS{
    {"cuInit", (void *)init}, {"cuDeviceGetCount", (void *)device_count}, {"cuDeviceGet", (void *)device_get},
    {"cuDeviceGetName", (void *)device_name}, {"cuDeviceGetAttribute", (void *)device_attribute}, {"cuDriverGetVersion", (void *)driver_version},
    {"cuDevicePrimaryCtxRetain", (void *)context_retain}, {"cuDevicePrimaryCtxRelease", (void *)context_release},
    {"cuCtxSetCurrent", (void *)context_current}, {"cuMemGetInfo", (void *)memory_info}, {"cuMemAlloc", (void *)memory_allocate},
    {"cuMemFree", (void *)memory_free}, {"cuMemHostAlloc", (void *)host_allocate}, {"cuMemFreeHost", (void *)host_free},
    {"cuMemsetD8Async", (void *)set_bytes}, {"cuMemcpyHtoDAsync", (void *)copy_in}, {"cuMemcpyDtoHAsync", (void *)copy_out},
    {"cuMemcpyDtoDAsync", (void *)copy_within}, {"cuStreamCreate", (void *)stream_create}, {"cuStreamDestroy", (void *)stream_destroy},
    {"cuStreamSynchronize", (void *)stream_synchronize}, {"cuStreamWaitEvent", (void *)stream_wait},
    {"cuStreamBeginCapture", (void *)capture_begin}, {"cuStreamEndCapture", (void *)capture_end},
    {"cuGraphInstantiateWithFlags", (void *)graph_instantiate}, {"cuGraphDestroy", (void *)graph_destroy}, {"cuGraphExecDestroy", (void *)exec_destroy},
    {"cuGraphLaunch", (void *)graph_launch}, {"cuEventCreate", (void *)event_create}, {"cuEventDestroy", (void *)event_destroy},
    {"cuEventRecord", (void *)event_record}, {"cuEventSynchronize", (void *)event_synchronize}, {"cuEventElapsedTime", (void *)event_elapsed},
    {"cuModuleLoadData", (void *)module_load}, {"cuModuleUnload", (void *)module_unload}, {"cuModuleGetFunction", (void *)module_function},
    {"cuLaunchKernel", (void *)launch}, {"cuGetErrorString", (void *)error_string},
};

}  // namespace

extern "C" int cuGetProcAddress_v2(const char *name, void **function, int, uint64_t, int *status) {
    auto found = FUNCTIONS.find(name);
    *function = found == FUNCTIONS.end() ? nullptr : found->second;
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}

/* How much is still held: of memory, pinned memory, streams, graphs, events, modules, contexts. */
extern "C" int fake_held() {
    return int(memory.size() + pinned.size() + streams.size() + graphs.size() + execs.size() + events.size() + modules.size()) + contexts;
}
