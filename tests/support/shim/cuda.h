/* CUDA C++ on the host, as far as edgert's kernels use it: blocks one after the other, their threads as fibers.

   `mma` does what the fragments of the PTX ISA's "Matrix Fragments for mma" say (m16n8k16 and m16n8k32, .s8 and .f16):
   group = lane / 4, t = lane % 4. So a kernel that takes fragments from the wrong place computes a wrong result here too. */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fibers.h"

#define __device__
#define __global__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint3 { unsigned x, y, z; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace shim {
inline uint3 block, grid, size;
inline uint3 thread_index() {
    unsigned i = fibers::thread();
    return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}

/* All blocks of a launch, as cuLaunchKernel takes it: `dims` are grid x y z and block x y z, `args` point to the arguments. Null, or an error. */
template <class... A, size_t... I>
const char *launch(void (*kernel)(A...), const unsigned *dims, void **args, std::index_sequence<I...>) {
    grid = {dims[0], dims[1], dims[2]}, size = {dims[3], dims[4], dims[5]};
    for (block.z = 0; block.z < grid.z; block.z++)
        for (block.y = 0; block.y < grid.y; block.y++)
            for (block.x = 0; block.x < grid.x; block.x++) {
                auto body = [&] { kernel(*static_cast<std::remove_const_t<std::remove_reference_t<A>> *>(args[I])...); };
                if (const char *error = fibers::run(size.x * size.y * size.z, 32, body)) return error;
            }
    return nullptr;
}
template <class... A> const char *launch(void (*kernel)(A...), const unsigned *dims, void **args) {
    return launch(kernel, dims, args, std::index_sequence_for<A...>());
}
}  // namespace shim

/* Makes a kernel callable from outside: launch_NAME(dims, args). */
#define SHIM_EXPORT(name) \
    extern "C" const char *launch_##name(const unsigned *dims, void **args) { return shim::launch(name, dims, args); }
extern "C" inline __attribute__((used)) void shim_order(unsigned order) { fibers::order = order; }

#define threadIdx (shim::thread_index())
#define blockIdx (shim::block)
#define gridDim (shim::grid)
#define blockDim (shim::size)

inline void __syncthreads() { fibers::barrier(); }
inline void __syncwarp() { fibers::warp_barrier(); }
template <class T> T __shfl_sync(unsigned, T value, int source) { return fibers::exchange(value, source & 31); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) { return fibers::exchange(value, fibers::lane() ^ mask); }
template <class T> T __shfl_up_sync(unsigned, T value, unsigned by) {
    T other = fibers::exchange(value, fibers::lane() < by ? fibers::lane() : fibers::lane() - by);
    return other;
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    int all[32] = {};
    fibers::share(predicate, all);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++) bits |= unsigned(all[i] != 0) << i;
    return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

template <class T, class U> T atomicAdd(T *at, U value) { return std::exchange(*at, T(*at + value)); }
template <class T> T atomicMin(T *at, T value) { return std::exchange(*at, std::min(*at, value)); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i) & 15, byte = unsigned(bytes >> (8 * (s & 7))) & 255;
        result |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
    }
    return result;
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += int8_t(a >> (8 * i)) * int8_t(b >> (8 * i));
    return c;
}
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return uint64_t((unsigned __int128)a * b >> 64); }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
inline float __int2float_rn(int x) { return float(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::max;
using std::min;

namespace machine {  // the host's form of machine.cuh
inline float half_to_float(uint16_t bits) { _Float16 h; memcpy(&h, &bits, 2); return float(h); }
inline uint16_t float_to_half(float x) { _Float16 h = _Float16(x); uint16_t bits; memcpy(&bits, &h, 2); return bits; }

inline void mma_s8(int (&d)[4], int a0, int a1, int a2, int a3, int b0, int b1) {
    struct Mine { int a[4], b[2]; } all[32];
    fibers::share(Mine{{a0, a1, a2, a3}, {b0, b1}}, all);
    int group = fibers::lane() / 4, t = fibers::lane() % 4;
    for (int i = 0; i < 4; i++) {
        int row = group + 8 * (i / 2), column = 2 * t + i % 2;
        for (int word = 0; word < 8; word++) {  // of k: 4 word … 4 word + 3
            int high = word / 4;
            d[i] = __dp4a(all[row % 8 * 4 + word % 4].a[row / 8 + 2 * high], all[column * 4 + word % 4].b[high], d[i]);
        }
    }
}
inline void mma_s8(int (&d)[4], int a0, int a1, int b0) { mma_s8(d, a0, a1, 0, 0, b0, 0); }

inline void mma_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    struct Mine { float a[4][2], b[2][2]; } mine, all[32];
    unsigned b[2] = {b0, b1};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) mine.a[j][i] = half_to_float(uint16_t(a[j] >> 16 * i));
        for (int j = 0; j < 2; j++) mine.b[j][i] = half_to_float(uint16_t(b[j] >> 16 * i));
    }
    fibers::share(mine, all);
    int group = fibers::lane() / 4, t = fibers::lane() % 4;
    for (int i = 0; i < 4; i++) {
        int row = group + 8 * (i / 2), column = 2 * t + i % 2;
        for (int k = 0; k < 16; k++) {
            int word = k / 2 % 4, high = k / 8;
            d[i] += all[row % 8 * 4 + word].a[row / 8 + 2 * high][k % 2] * all[column * 4 + word].b[high][k % 2];
        }
    }
}
}  // namespace machine
