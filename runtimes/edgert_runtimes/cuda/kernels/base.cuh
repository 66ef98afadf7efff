/* What all kernels share: types, conversions, sums over a warp and a block.

   Two compilers read these files: NVRTC, and in the tests g++ behind tests/support/shim/cuda.h, which has the host's form of what
   stands between #ifdef and #endif here. Blocks have one dimension. All lanes of a warp take part in every exchange. */
#pragma once

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef unsigned long long u64;
typedef long long i64;

#ifdef __CUDACC_RTC__
namespace machine {
__device__ __forceinline__ float half_to_float(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
__device__ __forceinline__ u16 float_to_half(float x) {  // to nearest, ties to even
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

/* d [16, 8] += a [16, 32] b [32, 8], int8: the fragments of mma.m16n8k32 (PTX ISA, "Matrix Fragments for mma.m16n8k32").
   With group = lane / 4 and t = lane % 4: a0 is row group, columns 4 t …; a1 row group + 8; a2 and a3 the same 16 columns on.
   b0 is column group, rows 4 t …; b1 16 rows on. d0, d1 are row group, columns 2 t and 2 t + 1; d2, d3 row group + 8. */
__device__ __forceinline__ void mma_s8(int (&d)[4], int a0, int a1, int b0) {  // [16, 16] [16, 8]
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
#else  // the halves are m8n8k16, whose fragments are the same
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(d[0]), "+r"(d[1]) : "r"(a0), "r"(b0));
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(d[2]), "+r"(d[3]) : "r"(a1), "r"(b0));
#endif
}
__device__ __forceinline__ void mma_s8(int (&d)[4], int a0, int a1, int a2, int a3, int b0, int b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    mma_s8(d, a0, a1, b0);
    mma_s8(d, a2, a3, b1);
#endif
}

/* d [16, 8] += a [16, 16] b [16, 8], halves: as above with two halves to a register, a2, a3 and b1 eight columns (rows) on. */
__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}
}  // namespace machine
#endif

constexpr int TILE_ROWS = 64;  // rows of activations in a tile of gemm.cuh, for which route.cuh sorts them

#define EVERYONE 0xffffffffu
#define INFINITE __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fc00000u)

using machine::float_to_half;
using machine::half_to_float;

__device__ __forceinline__ float bf16_to_float(u16 bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ __forceinline__ u16 float_to_bf16(float x) {  // to nearest, ties to even
    unsigned bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

__device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }
__device__ __forceinline__ int warp_id() { return threadIdx.x >> 5; }

template <int LANES = 32, class T> __device__ __forceinline__ T lanes_sum(T x) {
#pragma unroll
    for (int mask = LANES / 2; mask; mask /= 2) x += __shfl_xor_sync(EVERYONE, x, mask);
    return x;
}
template <int LANES = 32> __device__ __forceinline__ float lanes_max(float x) {
#pragma unroll
    for (int mask = LANES / 2; mask; mask /= 2) x = fmaxf(x, __shfl_xor_sync(EVERYONE, x, mask));
    return x;
}

/* The sum of x over the block, for every thread; WARPS values of shared memory. */
template <int WARPS, class T> __device__ T block_sum(T x) {
    __shared__ T sums[WARPS];
    x = lanes_sum(x);
    __syncthreads();  // those of an earlier sum are read
    if (lane_id() == 0) sums[warp_id()] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < WARPS; i++) x += sums[i];
    return x;
}

struct Silu {
    static __device__ __forceinline__ float of(float z, float y) { return z / (1.0f + expf(-z)) * y; }
};
struct Gelu {  // as tanh approximates it
    static __device__ __forceinline__ float of(float z, float y) {
        return 0.5f * z * (1.0f + tanhf(0.7978845608f * (z + 0.044715f * z * z * z))) * y;
    }
};
struct Sigmoid {
    static __device__ __forceinline__ float of(float z, float y) { return y / (1.0f + expf(-z)); }
};
struct Softplus {
    static __device__ __forceinline__ float of(float z, float y) { return (fmaxf(z, 0.0f) + log1pf(expf(-fabsf(z)))) * y; }
};
struct Relu {
    static __device__ __forceinline__ float of(float z, float y) { return (z < 0.0f ? 0.0f : z) * y; }  // a NaN stays one
};
struct Bilinear {
    static __device__ __forceinline__ float of(float z, float y) { return z * y; }
};
struct SwigluOai {  // gpt-oss
    static __device__ __forceinline__ float of(float z, float y) {
        z = z > 7.0f ? 7.0f : z;  // a NaN stays one
        y = y > 7.0f ? 7.0f : y < -7.0f ? -7.0f : y;
        return z / (1.0f + expf(-1.702f * z)) * (1.0f + y);
    }
};
