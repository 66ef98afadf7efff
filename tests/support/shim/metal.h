/* The Metal Shading Language on the host, as far as edgert's kernels use it: threadgroups one after the other, their threads as
   fibers, simdgroups of 32 lanes.

   Address spaces are erased; variables of a threadgroup are static, as one group runs at a time. A `simdgroup_matrix` belongs to
   all lanes together: here each lane loads all of it, and lane l has row l / 4 of products and stores that; so products can be
   summed and stored, but are no factors. A load that no barrier puts behind the stores of others gives what they have not
   stored yet. Not checked: how the Metal compiler reads the source, the ordering of memory, speed. */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fibers.h"

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
#ifdef __aarch64__
typedef __fp16 half;
#else
typedef _Float16 half;
#endif

/* The upper half of a float32; rounds to the nearest, ties to even. */
struct bfloat {
    ushort bits;
    bfloat() = default;
    explicit bfloat(float value) {
        uint word;
        memcpy(&word, &value, sizeof word);
        bits = value == value ? (word + 0x7FFF + (word >> 16 & 1)) >> 16 : 0x7FC0;
    }
    operator float() const {
        uint word = uint(bits) << 16;
        float value;
        memcpy(&value, &word, sizeof value);
        return value;
    }
};

template <class To, class From> To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

using std::max;
using std::min;
using std::sqrt;
namespace metal {
namespace precise {
using std::cos;
using std::exp;
using std::sin;
using std::tanh;
}  // namespace precise
}  // namespace metal
inline uint popcount(uint bits) { return __builtin_popcount(bits); }

template <class T> T simd_shuffle_xor(T value, ushort mask) { return fibers::exchange(value, fibers::lane() ^ mask); }

namespace mem_flags {
enum Flags { mem_threadgroup };
}
inline void threadgroup_barrier(mem_flags::Flags) { fibers::barrier(); }

struct simdgroup_float8x8 {
    float at[8][8];
};
template <class T, int N> simdgroup_float8x8 make_filled_simdgroup_matrix(T value) {
    simdgroup_float8x8 m;
    std::fill_n(&m.at[0][0], N * N, value);
    return m;
}
inline void simdgroup_load(simdgroup_float8x8 &m, const float *from, size_t stride) {
    for (int i = 0; i < 8; i++) memcpy(m.at[i], from + i * stride, sizeof m.at[i]);
}
inline void simdgroup_store(const simdgroup_float8x8 &m, float *to, size_t stride) {
    unsigned row = fibers::lane() / 4;
    memcpy(to + row * stride, m.at[row], sizeof m.at[row]);
}
/* d = a b + c */
inline void simdgroup_multiply_accumulate(simdgroup_float8x8 &d, const simdgroup_float8x8 &a, const simdgroup_float8x8 &b,
                                          const simdgroup_float8x8 &c) {
    unsigned row = fibers::lane() / 4;
    for (int j = 0; j < 8; j++) d.at[row][j] = c.at[row][j];
    for (int k = 0; k < 8; k++)
        for (int j = 0; j < 8; j++) d.at[row][j] += a.at[row][k] * b.at[k][j];
}

struct uint3 {
    uint x, y, z;
};

/* Where a thread is: the attributes of Metal's kernels that ours use. */
struct Place {
    uint3 thread_position_in_grid, threadgroup_position_in_grid;
    uint thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
};

/* What `dispatchThreads` does: `grid` threads in groups of `size`, less at the edges. Null, or what went wrong. */
template <class Body> const char *dispatch(uint3 grid, uint3 size, Body body) {
    for (uint z = 0; z < grid.z; z += size.z)
        for (uint y = 0; y < grid.y; y += size.y)
            for (uint x = 0; x < grid.x; x += size.x) {
                uint3 here = {min(size.x, grid.x - x), min(size.y, grid.y - y), min(size.z, grid.z - z)};
                auto work = [&] {
                    uint i = fibers::thread();
                    body(Place{{x + i % here.x, y + i / here.x % here.y, z + i / here.x / here.y},
                               {x / size.x, y / size.y, z / size.z},
                               i, i % 32, i / 32});
                };
                if (const char *error = fibers::run(here.x * here.y * here.z, 32, work)) return error;
            }
    return nullptr;
}

/* Last, as the standard library has these words too. */
#define constant static const
#define device
#define thread
#define threadgroup static
