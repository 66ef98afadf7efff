/* Queries, keys and values of each head on their way to attention: normalised, turned by rope, and (keys and values) stored in the cache. */
#pragma once
#include "cache.cuh"

namespace kernels {

/* What is done to a head: with eps below 0 it is not normalised (a norm of null is one of ones), and with a table of null not turned. */
struct HeadRule {
    const float *norm;
    const float2 *table;
    float eps;
    int begin, pairs;
};

/* A warp to a head of a row, whose elements are lane, lane + 32 …: q [rows, heads, head_size] is changed in place, k [rows, kv_heads,
   head_size] and v [rows, kv_heads, value_size] go to the slots of their rows, but for slots below 0. Sizes are at most 32 · EACH.
   A table has what `angles` makes; with `interleaved` pairs are neighbours, else half of what turns apart. */
template <class W, int EACH>
__device__ __forceinline__ void heads(float *q, const float *k, const float *v, const int *slots, u8 *keys, u8 *values, const float *q_norm,
                                      const float *k_norm, const float2 *q_table, const float2 *k_table, float q_eps, float k_eps, int q_begin,
                                      int k_begin, int q_pairs, int k_pairs, int interleaved, int rows, int heads, int kv_heads,
                                      int head_size, int value_size) {
    __shared__ float shared[4 * 32 * EACH];
    float *all = shared + 32 * EACH * warp_id();
    int each = heads + 2 * kv_heads;
    i64 warp = (i64)blockIdx.x * (blockDim.x / 32) + warp_id(), row = warp / each;
    if (row >= rows) return;
    int head = (int)(warp % each);
    bool query = head < heads, key = !query && head < heads + kv_heads;
    if (!query && slots[row] < 0) return;
    if (!query) head -= key ? heads : heads + kv_heads;
    int size = query || key ? head_size : value_size;
    const float *from = query ? q + (row * heads + head) * size : (key ? k : v) + (row * kv_heads + head) * size;
    HeadRule rule = query ? HeadRule{q_norm, q_table, q_eps, q_begin, q_pairs}
                    : key ? HeadRule{k_norm, k_table, k_eps, k_begin, k_pairs}
                          : HeadRule{nullptr, nullptr, -1.0f, 0, 0};

    float x[EACH], squares = 0;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        int i = lane_id() + 32 * j;
        x[j] = i < size ? from[i] : 0.0f;
        squares += x[j] * x[j];
    }
    if (rule.eps >= 0) {
        float scale = 1.0f / sqrtf(lanes_sum(squares) / (float)size + rule.eps);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int i = lane_id() + 32 * j;
            x[j] = x[j] * scale * (rule.norm && i < size ? rule.norm[i] : 1.0f);
        }
    }
    if (rule.table) {
#pragma unroll
        for (int j = 0; j < EACH; j++) all[lane_id() + 32 * j] = x[j];
        __syncwarp();
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int i = lane_id() + 32 * j - rule.begin;
            if (i < 0 || i >= 2 * rule.pairs) continue;
            bool second = interleaved ? i & 1 : i >= rule.pairs;
            float other = all[rule.begin + (interleaved ? i ^ 1 : second ? i - rule.pairs : i + rule.pairs)];
            float2 turn = rule.table[row * rule.pairs + (interleaved ? i / 2 : i % rule.pairs)];
            x[j] = second ? other * turn.y + x[j] * turn.x : x[j] * turn.x - other * turn.y;
        }
    }
    int width = kv_heads * size;
    u8 *to = query ? nullptr : (key ? keys : values) + slots[row] * row_bytes<W>(width);
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        int i = lane_id() + 32 * j;
        if (32 * j >= size) break;
        if (!query)
            store_element<W>(x[j], to, head * size + i, i < size);
        else if (i < size)
            q[(row * heads + head) * size + i] = x[j];
    }
}

}  // namespace kernels
