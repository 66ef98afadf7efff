/* Caches of keys and values: [slots, width] in blocks of a type, width = kv_heads · head_size. A block of Q8_0 or Q4_0 is 32 elements of
   one head. What a number becomes is what edgert_runtimes.reference.cache says. */
#pragma once
#include "types.cuh"

namespace kernels {

/* One element into the row at `to`; the lanes of a warp give 32 neighbours, `inside` those that exist. */
template <class W> __device__ __forceinline__ void store_element(float x, u8 *to, int i, bool inside);

template <> __device__ __forceinline__ void store_element<F32>(float x, u8 *to, int i, bool inside) {
    if (inside) ((float *)to)[i] = x;
}
template <> __device__ __forceinline__ void store_element<F16>(float x, u8 *to, int i, bool inside) {
    if (inside) ((u16 *)to)[i] = float_to_half(x);
}
template <> __device__ __forceinline__ void store_element<BF16>(float x, u8 *to, int i, bool inside) {
    if (inside) ((u16 *)to)[i] = float_to_bf16(x);
}

/* A half, or NaN where the block holds something that is not finite. */
__device__ __forceinline__ void store_scale(float d, float poison, u8 *to) { *(u16 *)to = float_to_half(d + poison); }

template <> __device__ __forceinline__ void store_element<Q8_0>(float x, u8 *to, int i, bool) {
    float d = lanes_max(fabsf(x)) / 127.0f, poison = lanes_sum(x * 0.0f);
    float inverse = d == 0.0f ? 0.0f : 1.0f / d;
    to += i / 32 * Q8_0::BYTES;
    to[2 + i % 32] = (u8)(s8)__float2int_rn(x * inverse);
    if (i % 32 == 0) store_scale(d, poison, to);
}

template <> __device__ __forceinline__ void store_element<Q4_0>(float x, u8 *to, int i, bool) {
    float largest = x, poison = lanes_sum(x * 0.0f);
    int owner = lane_id();
    for (int mask = 16; mask; mask /= 2) {  // the first of the largest magnitude
        float other = __shfl_xor_sync(EVERYONE, largest, mask);
        int lane = __shfl_xor_sync(EVERYONE, owner, mask);
        if (fabsf(other) > fabsf(largest) || (fabsf(other) == fabsf(largest) && lane < owner)) largest = other, owner = lane;
    }
    float d = largest / -8.0f;
    float inverse = d == 0.0f ? 0.0f : 1.0f / d;
    int q = (int)fminf(floorf(__fadd_rn(__fmul_rn(x, inverse), 8.5f)), 15.0f);
    int high = __shfl_xor_sync(EVERYONE, q, 16);
    to += i / 32 * Q4_0::BYTES;
    if (i % 32 < 16) to[2 + i % 32] = (u8)(q | high << 4);
    if (i % 32 == 0) store_scale(d, poison, to);
}

/* k [rows, key_width] and v [rows, value_width] (which may be 0) to keys and values at slots [rows]; a warp does 32 elements. Slots below
   0 are left out. */
template <class W>
__device__ __forceinline__ void store(const float *k, const float *v, const int *slots, u8 *keys, u8 *values, int rows, int key_width,
                                      int value_width) {
    int key_groups = (key_width + 31) / 32, groups = key_groups + (value_width + 31) / 32;
    i64 warp = (i64)blockIdx.x * (blockDim.x / 32) + warp_id();
    if (warp >= (i64)rows * groups) return;
    i64 row = warp / groups;
    int group = (int)(warp % groups);
    if (slots[row] < 0) return;
    bool key = group < key_groups;
    int width = key ? key_width : value_width, i = (key ? group : group - key_groups) * 32 + lane_id();
    const float *from = key ? k : v;
    u8 *to = (key ? keys : values) + slots[row] * row_bytes<W>(width);
    store_element<W>(i < width ? from[row * width + i] : 0.0f, to, i, i < width);
}

/* Blocks of block_bytes, (source, target) one pair after the other: a thread does the same sixteen bytes of all of them, in order. */
__device__ __forceinline__ void copy_blocks(u8 *cache, const int2 *pairs, int count, i64 block_bytes) {
    i64 start = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 16;
    for (int p = 0; p < count && start < block_bytes; p++) {
        const u8 *from = cache + pairs[p].x * block_bytes;
        u8 *to = cache + pairs[p].y * block_bytes;
        if (block_bytes % 16 == 0)
            *(uint4 *)(to + start) = *(const uint4 *)(from + start);
        else
            for (i64 i = start; i < start + 16 && i < block_bytes; i++) to[i] = from[i];
    }
}

}  // namespace kernels
