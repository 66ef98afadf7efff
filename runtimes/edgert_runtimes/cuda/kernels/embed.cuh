/* Rows of a matrix of any type as float32. */
#pragma once
#include "types.cuh"

namespace kernels {

/* y [rows, width] = w[tokens]. A thread does one number, or a part of 32 weights. */
template <class W> __device__ __forceinline__ void embed(const u8 *w, const int *tokens, float *y, int rows, int width) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    int pieces = W::FLOAT ? width : width / 32;
    if (i >= (i64)rows * pieces) return;
    i64 row = i / pieces;
    int piece = (int)(i % pieces);
    const u8 *from = w + tokens[row] * row_bytes<W>(width);
    y += row * width;
    if constexpr (W::FLOAT) {
        y[piece] = W::load(from, piece);
    } else {
        Piece<W> weights(from, piece, width);
        for (int j = 0; j < 32; j++) {
            int half = j / 16, q = (s8)(weights.part.q[j / 4] >> 8 * (j % 4));
            y[weights.place[half] + j % 16] = fmaf(weights.part.scale[half], (float)q, weights.part.min[half]);
        }
    }
}

}  // namespace kernels
