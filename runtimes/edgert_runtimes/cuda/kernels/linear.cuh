/* Matrix times few rows of activations: a warp to two outputs, its lanes take the pieces of both rows in turn, so that activations are
   read once for two rows of weights. */
#pragma once
#include "types.cuh"

namespace kernels {

template <class A, class B> constexpr bool same = false;
template <class A> constexpr bool same<A, A> = true;

/* Outputs first and first + 1 of rows of x that are `from` elements apart, and of y that are `to`. */
template <class W, int COLUMNS>
__device__ __forceinline__ void two_outputs(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const float *bias,
                                            const float *add, float *y, int first, int out, int k, int from, int to) {
    if (first >= out) return;
    const u8 *rows[2] = {w + first * row_bytes<W>(k), w + min(first + 1, out - 1) * row_bytes<W>(k)};
    float sums[2][COLUMNS] = {};
    for (int i = lane_id(); i < pieces<W>(k); i += 32) {
        Piece<W> both[2] = {{rows[0], i, k}, {rows[1], i, k}};
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                sums[r][c] += both[r].dot(x + (i64)c * from, codes + (i64)c * from, scales + (i64)c * (from / 32));
    }
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            float sum = lanes_sum(sums[r][c]);
            i64 place = (i64)c * to + first + r;
            if (lane_id() == 0 && first + r < out) y[place] = sum + (bias ? bias[first + r] : 0.0f) + (add ? add[place] : 0.0f);
        }
}

/* w [out, k]; x (or codes and scales) [COLUMNS, k]; bias [out] and add [COLUMNS, out] may be null; y [COLUMNS, out]. */
template <class W, int COLUMNS>
__device__ __forceinline__ void linear(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const float *bias,
                                       const float *add, float *y, int out, int k) {
    int first = (blockIdx.x * (blockDim.x / 32) + warp_id()) * 2;
    two_outputs<W, COLUMNS>(w, x, codes, scales, bias, add, y, first, out, k, k, out);
}

/* As `linear` for each of up to three matrices that read the same x. */
template <class A, class B, class C, int COLUMNS>
__device__ __forceinline__ void linear_several(const u8 *w0, const u8 *w1, const u8 *w2, const float *x, const s8 *codes,
                                               const float4 *scales, const float *bias0, const float *bias1, const float *bias2, float *y0,
                                               float *y1, float *y2, int out0, int out1, int out2, int k) {
    int first = blockIdx.x, blocks0 = (out0 + 7) / 8, blocks1 = (out1 + 7) / 8;
    int which = first < blocks0 ? 0 : first < blocks0 + blocks1 ? 1 : 2;
    first = (first - (which > 0 ? blocks0 : 0) - (which > 1 ? blocks1 : 0)) * 8 + 2 * warp_id();
    const u8 *w = which == 0 ? w0 : which == 1 ? w1 : w2;
    const float *bias = which == 0 ? bias0 : which == 1 ? bias1 : bias2;
    float *y = which == 0 ? y0 : which == 1 ? y1 : y2;
    int out = which == 0 ? out0 : which == 1 ? out1 : out2;
    if constexpr (same<A, B> && same<B, C>)
        two_outputs<A, COLUMNS>(w, x, codes, scales, bias, nullptr, y, first, out, k, k, out);
    else if (which == 0)
        two_outputs<A, COLUMNS>(w, x, codes, scales, bias, nullptr, y, first, out, k, k, out);
    else if (which == 1)
        two_outputs<B, COLUMNS>(w, x, codes, scales, bias, nullptr, y, first, out, k, k, out);
    else
        two_outputs<C, COLUMNS>(w, x, codes, scales, bias, nullptr, y, first, out, k, k, out);
}

/* w [heads, out, k]; x (or codes and scales) [COLUMNS, heads, k + rest]; y [COLUMNS, heads, out + rest]. */
template <class W, int COLUMNS>
__device__ __forceinline__ void head_linear(const u8 *w, const float *x, const s8 *codes, const float4 *scales, float *y, int heads,
                                            int out, int k, int rest) {
    int blocks = gridDim.x / heads, head = blockIdx.x / blocks;
    int first = (blockIdx.x % blocks * (blockDim.x / 32) + warp_id()) * 2;
    i64 start = (i64)head * (k + rest);
    two_outputs<W, COLUMNS>(w + (i64)head * out * row_bytes<W>(k), x + start, codes + start, scales + start / 32, nullptr, nullptr,
                            y + (i64)head * (out + rest), first, out, k, heads * (k + rest), heads * (out + rest));
}

}  // namespace kernels
