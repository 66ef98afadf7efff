/* Matrix times few rows of activations: a warp to an output, its lanes take the pieces of the row in turn. */
#pragma once
#include "types.cuh"

namespace kernels {

/* w [out, k]; x (or codes and scales) [COLUMNS, k]; bias [out] and add [COLUMNS, out] may be null; y [COLUMNS, out]. */
template <class W, int COLUMNS>
__device__ __forceinline__ void linear(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const float *bias,
                                       const float *add, float *y, int out, int k) {
    i64 row = (i64)blockIdx.x * (blockDim.x / 32) + warp_id();
    if (row >= out) return;
    const u8 *weights = w + row * row_bytes<W>(k);
    float sums[COLUMNS] = {};
    for (int i = lane_id(); i < pieces<W>(k); i += 32) {
        Piece<W> piece(weights, i, k);
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) sums[c] += piece.dot(x + (i64)c * k, codes + (i64)c * k, scales + (i64)c * (k / 32));
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        float sum = lanes_sum(sums[c]);
        if (lane_id() == 0) {
            if (bias) sum += bias[row];
            if (add) sum += add[(i64)c * out + row];
            y[(i64)c * out + row] = sum;
        }
    }
}

}  // namespace kernels
