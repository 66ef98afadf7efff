/* Attention of many rows of one sequence over caches in blocks, by mma.sync on halves: a block of threads does 64 queries (rows times the
   heads that share a kv head), a warp sixteen of them.

   Halves have eleven bits, and float32 results are wanted: queries, weights, and keys and values of types that need it are each the sum of
   two halves, of which the product of the two small ones is left out. What is beyond 65504, be it a query times the scale, becomes
   infinite, as everywhere where attention is done on halves. Keys lie in shared memory as [position, D] and values as
   [D, position], both padded so that the eight rows of a fragment are in different banks. */
#pragma once
#include "cached.cuh"

namespace kernels {

/* Two halves of two floats: what they are rounded to, and what is left. */
__device__ __forceinline__ void split_halves(float x, float y, unsigned &high, unsigned &low) {
    u16 a = float_to_half(x), b = float_to_half(y);
    high = a | (unsigned)b << 16;
    low = float_to_half(x - half_to_float(a)) | (unsigned)float_to_half(y - half_to_float(b)) << 16;
}

/* Eight elements of a cache as halves, and what is left of them where TWO. */
template <class W, bool TWO>
__device__ __forceinline__ void load_halves(const u8 *row, int i, unsigned (&high)[4], unsigned (&low)[4]) {
    if constexpr (TWO) {
        float x[8];
        load8<W>(row, i, x);
#pragma unroll
        for (int j = 0; j < 4; j++) split_halves(x[2 * j], x[2 * j + 1], high[j], low[j]);
    } else {
        load_aligned(row + 2 * i, high);
    }
}

/* d += (a + a') (b + b'), without a' b'. */
template <bool TWO>
__device__ __forceinline__ void mma_split(float (&d)[4], const unsigned (&a)[4], const unsigned (&a_low)[4], const unsigned (&b)[2],
                                          const unsigned (&b_low)[2]) {
    machine::mma_f16(d, a, b[0], b[1]);
    machine::mma_f16(d, a_low, b[0], b[1]);
    if constexpr (TWO) machine::mma_f16(d, a, b_low[0], b_low[1]);
}

/* As `attend` without splits; tiles int2 [count]: the first row and how many, at most 64 / G. W: F16, Q8_0 or Q4_0, whose numbers are
   products of a half and a small integer. */
template <class W, int D, int G>
__device__ __forceinline__ void attend_tile(const float *q, const u8 *keys, const u8 *values, const int *tables, const int *sequence,
                                            const int *positions, const float *sinks, float *out, const int2 *tiles, int count,
                                            int kv_heads, int table_width, int block_size, int window, float scale, float softcap) {
    constexpr bool TWO = !W::FLOAT;
    constexpr int TILE = TWO ? 32 : 64, KEY = D / 2 + 4, VALUE = TILE / 2 + 4, PARTS = TWO ? 2 : 1;  // strides in words
    static_assert(D % 16 == 0 && D <= 128 && G <= 64);
    __shared__ __align__(16) unsigned tile_keys[PARTS][TILE * KEY];
    __shared__ __align__(16) unsigned tile_values[PARTS][D * VALUE];

    int2 mine = tiles[blockIdx.x / kv_heads];
    int kv_head = blockIdx.x % kv_heads, heads = kv_heads * G;
    int group = lane_id() / 4, t = lane_id() % 4;
    i64 bytes = row_bytes<W>(kv_heads * D), head_bytes = row_bytes<W>(D) * kv_head;
    Table table{tables + (i64)sequence[mine.x] * table_width, block_size};

    /* The queries of this thread: 16 · warp + group, and eight on. */
    i64 place[2];
    int position[2], from[2];
    bool real[2];
    for (int i = 0; i < 2; i++) {
        int query = 16 * warp_id() + group + 8 * i;
        real[i] = query / G < mine.y;
        i64 row = mine.x + (real[i] ? query / G : 0);
        place[i] = (row * heads + kv_head * G + query % G) * D;
        position[i] = real[i] ? positions[row] : -1;
        from[i] = first_seen(position[i], window);
    }
    unsigned queries[D / 16][4], queries_low[D / 16][4];
#pragma unroll
    for (int s = 0; s < D / 16; s++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 x = *(const float2 *)(q + place[i % 2] + 16 * s + 2 * t + 8 * (i / 2));
            split_halves(x.x * scale, x.y * scale, queries[s][i], queries_low[s][i]);
        }

    Softmax softmax[2] = {{-INFINITE, 0.0f}, {-INFINITE, 0.0f}};
    float total[D / 8][4] = {};
    int first = positions[mine.x], end = positions[mine.x + mine.y - 1] + 1;
    first = first_seen(first, window);
    for (int start = first; start < end; start += TILE) {
        __syncthreads();  // the last tile is used
        for (int i = threadIdx.x; i < TILE * (D / 8); i += 128) {
            int n = i / (D / 8), d = i % (D / 8) * 8;
            unsigned high[4] = {}, low[4] = {};
            if (start + n < end) load_halves<W, TWO>(keys + table.slot(start + n) * bytes + head_bytes, d, high, low);
            *(uint4 *)&tile_keys[0][n * KEY + d / 2] = uint4{high[0], high[1], high[2], high[3]};
            if constexpr (TWO) *(uint4 *)&tile_keys[1][n * KEY + d / 2] = uint4{low[0], low[1], low[2], low[3]};
        }
        for (int i = threadIdx.x; i < TILE * (D / 8); i += 128) {
            int n = i % TILE, d = i / TILE * 8;
            unsigned high[4] = {}, low[4] = {};
            if (start + n < end) load_halves<W, TWO>(values + table.slot(start + n) * bytes + head_bytes, d, high, low);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                ((u16 *)tile_values[0])[(d + j) * 2 * VALUE + n] = (u16)(high[j / 2] >> 16 * (j % 2));
                if constexpr (TWO) ((u16 *)tile_values[1])[(d + j) * 2 * VALUE + n] = (u16)(low[j / 2] >> 16 * (j % 2));
            }
        }
        __syncthreads();

        float scores[TILE / 8][4] = {};
        float top[2] = {-INFINITE, -INFINITE};
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
            for (int s = 0; s < D / 16; s++) {
                unsigned key[2], key_low[2] = {};
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int word = (8 * n + group) * KEY + 8 * s + t + 4 * i;
                    key[i] = tile_keys[0][word];
                    if constexpr (TWO) key_low[i] = tile_keys[1][word];
                }
                mma_split<TWO>(scores[n], queries[s], queries_low[s], key, key_low);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int p = start + 8 * n + 2 * t + i % 2;
                bool seen = p <= position[i / 2] && p >= from[i / 2];
                scores[n][i] = seen ? capped(scores[n][i], softcap) : -INFINITE;
                top[i / 2] = fmaxf(top[i / 2], scores[n][i]);
            }
        }
        float factor[2], sum[2] = {};
#pragma unroll
        for (int i = 0; i < 2; i++) factor[i] = softmax[i].raise(lanes_max<4>(top[i]));
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[n][i] = softmax[i / 2].weight(scores[n][i]);
                sum[i / 2] += scores[n][i];
            }
#pragma unroll
        for (int i = 0; i < 2; i++) softmax[i].sum = softmax[i].sum * factor[i] + lanes_sum<4>(sum[i]);
#pragma unroll
        for (int d = 0; d < D / 8; d++)
#pragma unroll
            for (int i = 0; i < 4; i++) total[d][i] *= factor[i / 2];
        /* The results of two products side by side are the fragment of sixteen columns for the next. */
#pragma unroll
        for (int s = 0; s < TILE / 16; s++) {
            unsigned weights[4], weights_low[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&x)[4] = scores[2 * s + i / 2];
                split_halves(x[i % 2 * 2], x[i % 2 * 2 + 1], weights[i], weights_low[i]);
            }
#pragma unroll
            for (int d = 0; d < D / 8; d++) {
                unsigned value[2], value_low[2] = {};
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int word = (8 * d + group) * VALUE + 8 * s + t + 4 * i;
                    value[i] = tile_values[0][word];
                    if constexpr (TWO) value_low[i] = tile_values[1][word];
                }
                mma_split<TWO>(total[d], weights, weights_low, value, value_low);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (!real[i]) continue;
        float factor = 1.0f, below = softmax[i].sum;
        if (sinks) {
            float sink = sinks[kv_head * G + (16 * warp_id() + group + 8 * i) % G];
            factor = softmax[i].raise(sink);
            below = softmax[i].sum * factor + softmax[i].weight(sink);
        }
#pragma unroll
        for (int d = 0; d < D / 8; d++) {
            float2 pair{total[d][2 * i] * factor / below, total[d][2 * i + 1] * factor / below};
            *(float2 *)(out + place[i] + 8 * d + 2 * t) = pair;
        }
    }
}

}  // namespace kernels
