/* Mixture of experts for few rows: every row multiplies with its own experts, whose numbers are read where the router left them. */
#pragma once
#include "types.cuh"

namespace kernels {

/* h [rows · used, hidden] = F(gate x + gate_bias, up x + up_bias) of expert ids[slot] and row slot / used of x. A block does 32 of h, so
   that it can write them as a block of q8 too (hidden is a multiple of 32 then); a warp does four, each with its two products.
   gate and up [experts, hidden, k]; biases [experts, hidden], may be null, as may h_codes, and weights [rows · used], with which x is
   multiplied. Experts < 0 are left out. */
template <class Gate, class Up, class F>
__device__ __forceinline__ void experts_up(const u8 *gate, const u8 *up, const float *x, const s8 *codes, const float4 *scales,
                                           const int *ids, const float *weights, const float *gate_bias, const float *up_bias, float *h,
                                           s8 *h_codes, float4 *h_scales, int rows, int used, int hidden, int k) {
    __shared__ float values[32];
    int groups = (hidden + 31) / 32;
    i64 slot = blockIdx.x / groups;
    int start = blockIdx.x % groups * 32;
    i64 row = slot / used, expert = ids[slot];
    if (expert < 0) return;  // the whole block
    float weight = weights ? weights[slot] : 1.0f;
    x += row * k, codes += row * k, scales += row * (k / 32);
#pragma unroll 1
    for (int j = 0; j < 4; j++) {
        int out = start + 4 * warp_id() + j;
        if (out < hidden) {
            const u8 *gate_row = gate + (expert * hidden + out) * row_bytes<Gate>(k);
            const u8 *up_row = up + (expert * hidden + out) * row_bytes<Up>(k);
            float z = 0, y = 0;
            if constexpr (Gate::FLOAT == Up::FLOAT) {  // rows of as many pieces: side by side, for more loads at a time
#pragma unroll 2
                for (int i = lane_id(); i < pieces<Gate>(k); i += 32) {
                    Piece<Gate> gate_piece(gate_row, i, k);
                    Piece<Up> up_piece(up_row, i, k);
                    z += gate_piece.dot(x, codes, scales);
                    y += up_piece.dot(x, codes, scales);
                }
            } else {
                for (int i = lane_id(); i < pieces<Gate>(k); i += 32) z += Piece<Gate>(gate_row, i, k).dot(x, codes, scales);
                for (int i = lane_id(); i < pieces<Up>(k); i += 32) y += Piece<Up>(up_row, i, k).dot(x, codes, scales);
            }
            z = weight * lanes_sum(z) + (gate_bias ? gate_bias[expert * hidden + out] : 0.0f);
            y = weight * lanes_sum(y) + (up_bias ? up_bias[expert * hidden + out] : 0.0f);
            if (lane_id() == 0) values[4 * warp_id() + j] = F::of(z, y);
        }
    }
    __syncthreads();
    if (warp_id() == 0 && start + lane_id() < hidden) {
        float value = values[lane_id()];
        h[slot * hidden + start + lane_id()] = value;
        if (h_codes) write_block(value, h_codes, h_scales, (slot * hidden + start) / 32);
    }
}

/* y [rows, out] = Σ shares · (w[ids] x + bias[ids]) over the slots of a row, + add; x (or codes) [rows · used, k]. A warp does two
   outputs: its lanes take the pieces of all slots in turn, since one row of an expert may be too short for them.
   w [experts, out, k]; shares, bias [experts, out] and add [rows, out] may be null. Experts < 0 are left out. */
template <class W>
__device__ __forceinline__ void experts_down(const u8 *w, const float *x, const s8 *codes, const float4 *scales, const int *ids,
                                             const float *shares, const float *bias, const float *add, float *y, int rows, int used,
                                             int out, int k) {
    int groups = (out + 7) / 8;
    i64 row = blockIdx.x / groups;
    int first = blockIdx.x % groups * 8 + 2 * warp_id(), second = min(first + 1, out - 1);
    if (first >= out) return;
    ids += row * used;
    auto share_of = [&](int rank) { return shares ? shares[row * used + rank] : 1.0f; };
    int each = pieces<W>(k);
    float sums[2] = {};
    for (int i = lane_id(); i < used * each; i += 32) {
        int rank = i / each;
        if (ids[rank] < 0) continue;
        i64 slot = row * used + rank, start = (i64)ids[rank] * out;
        Piece<W> both[2] = {{w + (start + first) * row_bytes<W>(k), i % each, k}, {w + (start + second) * row_bytes<W>(k), i % each, k}};
#pragma unroll
        for (int r = 0; r < 2; r++) sums[r] += share_of(rank) * both[r].dot(x + slot * k, codes + slot * k, scales + slot * (k / 32));
    }
    if (bias)
        for (int rank = lane_id(); rank < used; rank += 32) {
            if (ids[rank] < 0) continue;
            const float *mine = bias + (i64)ids[rank] * out;
            sums[0] += share_of(rank) * mine[first];
            sums[1] += share_of(rank) * mine[second];
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = lanes_sum(sums[r]);
        i64 place = row * out + first + r;
        if (lane_id() == 0 && first + r < out) y[place] = add ? sum + add[place] : sum;
    }
}

}  // namespace kernels
