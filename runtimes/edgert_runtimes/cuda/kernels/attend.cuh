/* Attention of few rows over caches in blocks: a block of threads does one row, HEADS of the G heads that share a
   kv head, and one of `splits` parts of the positions; `attend_combine` puts the parts together.

   Sixteen groups of 32 positions: four lanes multiply a key with the queries of all heads, so that it is read once; a warp does the
   softmax of a head; then each thread adds up eight elements of the values of every n-th position. */
#pragma once
#include "cached.cuh"

namespace kernels {

/* q [rows, kv_heads · G · K]; keys [slots, kv_heads · K] and values [slots, kv_heads · D] in blocks of W, or the same as keys where values
   are the beginning of these; tables [sequences, table_width]; sequence and
   positions [rows]. Row r sees positions from first_seen(positions[r], window) to positions[r]. sinks [heads] may be null.
   With one split out [rows, heads · D] is the result, of which blocks go to codes and scales unless these are null; else partial
   [rows · heads, splits, D + 2] is: sums, highest score, sum of weights. */
template <class W, int K, int D, int G, int HEADS>
__device__ __forceinline__ void attend(const float *q, const u8 *keys, const u8 *values, const int *tables, const int *sequence,
                                       const int *positions, const float *sinks, float *out, s8 *codes, float4 *scales, float *partial,
                                       int rows, int kv_heads, int table_width, int block_size, int window, float scale, float softcap,
                                       int splits) {
    constexpr int CHUNKS = D / 8, SHARES = 128 / CHUNKS, TILE = 32;
    static_assert(K % 8 == 0 && K <= 1024 && D % 8 == 0 && D <= 1024 && G % HEADS == 0);
    __shared__ __align__(16) float queries[HEADS * K];
    __shared__ float weights[HEADS * TILE], factors[HEADS], highest[HEADS], sums[HEADS];
    __shared__ float gathered[128 * 8];

    int split = blockIdx.x % splits, first_head = blockIdx.x / splits % (kv_heads * (G / HEADS)) * HEADS;
    i64 row = blockIdx.x / splits / (kv_heads * (G / HEADS));
    int heads = kv_heads * G, kv_head = first_head / G;
    i64 bytes = row_bytes<W>(kv_heads * K), head_bytes = row_bytes<W>(K) * kv_head;
    bool shared = keys == values;
    i64 value_bytes = shared ? bytes : row_bytes<W>(kv_heads * D), value_head = shared ? head_bytes : row_bytes<W>(D) * kv_head;
    Table table{tables + (i64)sequence[row] * table_width, block_size};

    int position = positions[row], begin = first_seen(position, window);
    int tiles = (position + TILE - begin) / TILE, each = (tiles + splits - 1) / splits;
    int start = begin + split * each * TILE, end = min(start + each * TILE, position + 1);

    for (int i = threadIdx.x; i < HEADS * K; i += 128) queries[i] = q[(row * heads + first_head) * K + i] * scale;
    Softmax mine[(HEADS + 3) / 4];  // of heads warp, warp + 4 …
    for (auto &softmax : mine) softmax = {-INFINITE, 0.0f};
    float total[HEADS][8] = {};
    int chunk = threadIdx.x % CHUNKS, share = threadIdx.x / CHUNKS;
    __syncthreads();
    for (int tile = start; tile < end; tile += TILE) {
        int n = threadIdx.x / 4;
        bool inside = tile + n < end;
        float scores[HEADS] = {};
        if (inside) {
            const u8 *key = keys + table.slot(tile + n) * bytes + head_bytes;
#pragma unroll
            for (int c = 0; c < K / 8; c += 4) {
                int i = 8 * (c + threadIdx.x % 4);
                if (i >= K) break;
                float k[8];
                load8<W>(key, i, k);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
#pragma unroll
                    for (int j = 0; j < 8; j += 4) {
                        float4 a = *(const float4 *)&queries[h * K + i + j];
                        scores[h] += a.x * k[j] + a.y * k[j + 1] + a.z * k[j + 2] + a.w * k[j + 3];
                    }
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float score = capped(lanes_sum<4>(scores[h]), softcap);
            if (threadIdx.x % 4 == 0) weights[h * TILE + n] = inside ? score : -INFINITE;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < (HEADS + 3) / 4; i++) {
            int h = warp_id() + 4 * i;
            if (h < HEADS) {
                float score = weights[h * TILE + lane_id()];
                float factor = mine[i].raise(lanes_max(score)), weight = mine[i].weight(score);
                mine[i].sum = mine[i].sum * factor + lanes_sum(weight);
                weights[h * TILE + lane_id()] = weight;
                if (lane_id() == 0) factors[h] = factor;
            }
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int j = 0; j < 8; j++) total[h][j] *= factors[h];
#pragma unroll 2
        for (int p = share; share < SHARES && p < TILE && tile + p < end; p += SHARES) {
            float v[8];
            load8<W>(values + table.slot(tile + p) * value_bytes + value_head, 8 * chunk, v);
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int j = 0; j < 8; j++) total[h][j] += weights[h * TILE + p] * v[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < (HEADS + 3) / 4; i++)
        if (warp_id() + 4 * i < HEADS && lane_id() == 0) {
            highest[warp_id() + 4 * i] = mine[i].highest;
            sums[warp_id() + 4 * i] = mine[i].sum;
        }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < 8; j++) gathered[threadIdx.x * 8 + j] = total[h][j];
        __syncthreads();
        i64 head = row * heads + first_head + h;
        Softmax softmax{highest[h], sums[h]};
        for (int d = threadIdx.x; d < D; d += 128) {
            float sum = 0;
#pragma unroll 4
            for (int s = 0; s < SHARES; s++) sum += gathered[s * D + d];
            if (splits > 1) {
                partial[(head * splits + split) * (D + 2) + d] = sum;
            } else {
                float factor = 1.0f, below = softmax.sum;
                if (sinks) {
                    Softmax all = softmax;
                    factor = all.raise(sinks[first_head + h]);
                    below = softmax.sum * factor + all.weight(sinks[first_head + h]);
                }
                float value = sum * factor / below;
                out[head * D + d] = value;
                if (codes) write_block(value, codes, scales, (head * D + d) / 32);
            }
        }
        if (splits > 1 && threadIdx.x == 0) {
            partial[(head * splits + split) * (D + 2) + D] = softmax.highest;
            partial[(head * splits + split) * (D + 2) + D + 1] = softmax.sum;
        }
    }
}

/* A warp to a head of a row: out [rows, heads · D], and blocks as in `attend`, from partial [rows · heads, splits, D + 2]. */
template <int D>
__device__ __forceinline__ void attend_combine(const float *partial, const float *sinks, float *out, s8 *codes, float4 *scales, int rows,
                                               int heads, int splits) {
    i64 head = (i64)blockIdx.x * (blockDim.x / 32) + warp_id();
    if (head >= (i64)rows * heads) return;
    partial += head * splits * (D + 2);
    Softmax all{-INFINITE, 0.0f};
    float sink = sinks ? sinks[head % heads] : -INFINITE;
    all.raise(sink);
    for (int s = 0; s < splits; s++) all.raise(partial[s * (D + 2) + D]);
    all.sum = all.weight(sink);
    for (int s = 0; s < splits; s++) all.sum += all.weight(partial[s * (D + 2) + D]) * partial[s * (D + 2) + D + 1];
    for (int d = lane_id(); d < D; d += 32) {
        float sum = 0;
        for (int s = 0; s < splits; s++) sum += all.weight(partial[s * (D + 2) + D]) * partial[s * (D + 2) + d];
        out[head * D + d] = sum / all.sum;
        if (codes) write_block(sum / all.sum, codes, scales, (head * D + d) / 32);
    }
}

}  // namespace kernels
