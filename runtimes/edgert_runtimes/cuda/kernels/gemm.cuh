/* Matrix times many rows of activations, in tiles of 128 outputs by 64 rows: y = x Wᵀ. Rows are those of x in order, or the sorted pairs
   of one expert. Matrices of block types are multiplied as int8 by mma.sync, 128 of k at a time; those of floats in float32. */
#pragma once
#include "types.cuh"

namespace kernels {

constexpr int TILE_OUT = 128;

/* The rows of a tile: where they are read from x, and where they go in y, whose rows are `from` and `to` elements apart. */
struct Rows {
    const int *order;  // null: row i is first + i, of x and y alike
    i64 first;
    int count, divisor, from, to;
    __device__ __forceinline__ i64 target(int i) const { return order ? order[first + i] : first + i; }
    __device__ __forceinline__ i64 source(int i) const { return order ? order[first + i] / divisor : first + i; }
};

/* What is added to a product. */
__device__ __forceinline__ float finish(float sum, const float *bias, const float *add, i64 place, int out) {
    if (bias) sum += bias[out];
    return add ? sum + add[place] : sum;
}

/* Integer tiles. A warp does 32 outputs by 32 rows: two by four products of mma_s8 (see base.cuh for their fragments). After every 32
   (or 16, where halves have their own scales) of k the integers are scaled and added up in floats: with w = s q + m and x = d c,
   Σ w x = s d Σ q c + m Σ x. Rows in shared memory are 36 words apart, so that the eight rows of a fragment lie in different banks. */
template <class W>
__device__ __forceinline__ void integer_tile(const u8 *w, const s8 *codes, const float4 *scales, const float *bias, const float *add,
                                             float *y, Rows rows, int start, int out, int k) {
    constexpr int STRIDE = 36, HALVES = 8;
    __shared__ __align__(16) int weights[TILE_OUT * STRIDE];
    __shared__ float2 steps[TILE_OUT * HALVES];  // scale and min of sixteen weights
    __shared__ __align__(16) int inputs[TILE_ROWS * STRIDE];
    __shared__ float4 sums[TILE_ROWS * 4];

    int group = lane_id() / 4, t = lane_id() % 4;
    int my_out = 32 * (warp_id() % 4), my_rows = 32 * (warp_id() / 4);
    float total[2][4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 128) {
        __syncthreads();  // the last tile is used
        for (int i = threadIdx.x; i < TILE_OUT * 4; i += 256) {
            int row = i / 4, piece = k0 / 32 + i % 4;
            if (start + row < out && 32 * piece < k) {
                Piece<W> p(w + (start + row) * row_bytes<W>(k), piece, k);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int place = p.place[half] - k0;
                    const int *q = &p.part.q[4 * half];
                    *(int4 *)&weights[row * STRIDE + place / 4] = int4{q[0], q[1], q[2], q[3]};
                    steps[row * HALVES + place / 16] = float2{p.part.scale[half], p.part.min[half]};
                }
            } else {
                int4 *to = (int4 *)&weights[row * STRIDE + 8 * (i % 4)];
                to[0] = to[1] = int4{0, 0, 0, 0};
                steps[row * HALVES + 2 * (i % 4)] = steps[row * HALVES + 2 * (i % 4) + 1] = float2{0, 0};
            }
        }
        for (int i = threadIdx.x; i < TILE_ROWS * 8; i += 256) {
            int row = i / 8, from = k0 + 16 * (i % 8);
            bool inside = row < rows.count && from < k;
            i64 source = inside ? rows.source(row) : 0;
            *(int4 *)&inputs[row * STRIDE + 4 * (i % 8)] = inside ? *(const int4 *)(codes + source * rows.from + from) : int4{0, 0, 0, 0};
            if (i % 2 == 0) sums[row * 4 + i % 8 / 2] = inside ? scales[source * (rows.from / 32) + from / 32] : make_float4(0, 0, 0, 0);
        }
        __syncthreads();
#pragma unroll 1
        for (int step = 0; step < 4; step++) {
            int a[2][4], b[4][2];
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    a[m][i] = weights[(my_out + 16 * m + group + 8 * (i % 2)) * STRIDE + 8 * step + t + 4 * (i / 2)];
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) b[n][i] = inputs[(my_rows + 8 * n + group) * STRIDE + 8 * step + t + 4 * i];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                float2 scale[2][2];  // of rows group and group + 8, and of both halves
#pragma unroll
                for (int i = 0; i < 4; i++) scale[i / 2][i % 2] = steps[(my_out + 16 * m + group + 8 * (i / 2)) * HALVES + 2 * step + i % 2];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    int whole[4] = {}, second[4] = {};
                    if constexpr (W::GROUP == 32) {
                        machine::mma_s8(whole, a[m][0], a[m][1], a[m][2], a[m][3], b[n][0], b[n][1]);
                    } else {
                        machine::mma_s8(whole, a[m][0], a[m][1], b[n][0]);
                        machine::mma_s8(second, a[m][2], a[m][3], b[n][1]);
                    }
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float4 x = sums[(my_rows + 8 * n + 2 * t + i % 2) * 4 + step];
                        const float2(&s)[2] = scale[i / 2];
                        float &sum = total[m][n][i];
                        sum += s[0].x * x.x * (float)whole[i];
                        if constexpr (W::GROUP == 16) sum += s[1].x * x.x * (float)second[i];
                        if constexpr (W::MIN) sum += s[0].y * x.y + s[1].y * x.z;
                    }
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = my_rows + 8 * n + 2 * t + i % 2, o = start + my_out + 16 * m + group + 8 * (i / 2);
                if (row >= rows.count || o >= out) continue;
                i64 place = rows.target(row) * rows.to + o;
                y[place] = finish(total[m][n][i], bias, add, place, o);
            }
}

/* Float tiles, 16 of k at a time: a thread does eight outputs by four rows. */
template <class W>
__device__ __forceinline__ void float_tile(const u8 *w, const float *x, const float *bias, const float *add, float *y, Rows rows,
                                           int start, int out, int k) {
    constexpr int STEP = 16, STRIDE = STEP + 1;
    __shared__ float weights[TILE_OUT * STRIDE];
    __shared__ float inputs[TILE_ROWS * STRIDE];
    int my_out = threadIdx.x % 16, my_rows = threadIdx.x / 16;  // and every sixteenth from there
    float total[8][4] = {};
    for (int k0 = 0; k0 < k; k0 += STEP) {
        __syncthreads();
        for (int i = threadIdx.x; i < TILE_OUT * STEP; i += 256) {
            int row = i / STEP, at = k0 + i % STEP;
            bool inside = start + row < out && at < k;
            weights[row * STRIDE + i % STEP] = inside ? W::load(w + (start + row) * row_bytes<W>(k), at) : 0.0f;
        }
        for (int i = threadIdx.x; i < TILE_ROWS * STEP; i += 256) {
            int row = i / STEP, at = k0 + i % STEP;
            inputs[row * STRIDE + i % STEP] = row < rows.count && at < k ? x[rows.source(row) * rows.from + at] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < STEP; j++) {
            float a[8], b[4];
#pragma unroll
            for (int m = 0; m < 8; m++) a[m] = weights[(my_out + 16 * m) * STRIDE + j];
#pragma unroll
            for (int n = 0; n < 4; n++) b[n] = inputs[(my_rows + 16 * n) * STRIDE + j];
#pragma unroll
            for (int m = 0; m < 8; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) total[m][n] += a[m] * b[n];
        }
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int m = 0; m < 8; m++) {
            int row = my_rows + 16 * n, o = start + my_out + 16 * m;
            if (row >= rows.count || o >= out) continue;
            i64 place = rows.target(row) * rows.to + o;
            y[place] = finish(total[m][n], bias, add, place, o);
        }
}

template <class W>
__device__ __forceinline__ void tile(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const float *bias,
                                     const float *add, float *y, Rows rows, int start, int out, int k) {
    if constexpr (W::FLOAT)
        float_tile<W>(w, x, bias, add, y, rows, start, out, k);
    else
        integer_tile<W>(w, codes, scales, bias, add, y, rows, start, out, k);
}

/* w [out, k]; x (or codes and scales) [rows, k]; bias [out] and add [rows, out] may be null. Blocks that share weights are neighbours. */
template <class W>
__device__ __forceinline__ void gemm(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const float *bias,
                                     const float *add, float *y, int rows, int out, int k) {
    int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, first = blockIdx.x % tiles * TILE_ROWS;
    Rows mine{nullptr, first, min(TILE_ROWS, rows - first), 1, k, out};
    tile<W>(w, x, codes, scales, bias, add, y, mine, blockIdx.x / tiles * TILE_OUT, out, k);
}

/* w [heads, out, k]; x (or codes and scales) [rows, heads, k + rest]; y [rows, heads, out + rest]. */
template <class W>
__device__ __forceinline__ void head_gemm(const u8 *w, const float *x, const s8 *codes, const float4 *scales, float *y, int rows, int heads,
                                          int out, int k, int rest) {
    int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, first = blockIdx.x % tiles * TILE_ROWS;
    int blocks = gridDim.x / tiles / heads, head = blockIdx.x / tiles / blocks;
    i64 start = (i64)head * (k + rest);
    Rows mine{nullptr, first, min(TILE_ROWS, rows - first), 1, heads * (k + rest), heads * (out + rest)};
    tile<W>(w + (i64)head * out * row_bytes<W>(k), x + start, codes + start, scales + start / 32, nullptr, nullptr,
            y + (i64)head * (out + rest), mine, blockIdx.x / tiles % blocks * TILE_OUT, out, k);
}

/* w [experts, out, k]; tile (expert, first, end, 0) are the pairs order[first … end]; a pair is row · used + rank, its activations are row
   pair / divisor of x, its result is row pair of y; bias [experts, out] may be null. */
template <class W>
__device__ __forceinline__ void experts_gemm(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const int *order,
                                             const int4 *tiles, const float *bias, float *y, int most_tiles, int divisor, int out, int k) {
    int4 which = tiles[blockIdx.x % most_tiles];
    if (which.y == which.z) return;
    Rows mine{order, which.y, which.z - which.y, divisor, k, out};
    tile<W>(w + which.x * (i64)out * row_bytes<W>(k), x, codes, scales, bias ? bias + (i64)which.x * out : nullptr, nullptr, y, mine,
            blockIdx.x / most_tiles * TILE_OUT, out, k);
}

}  // namespace kernels
