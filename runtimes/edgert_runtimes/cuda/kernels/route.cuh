/* Which experts a row goes to, and which rows an expert gets. */
#pragma once
#include "base.cuh"

namespace kernels {

/* A warp to a row: the `used` largest of logits [rows, experts], the lower index first among equals, and their shares: the softmax over
   all experts, or over the chosen ones if normalize. A NaN counts as minus infinity, and sets *failed to 1. */
__device__ __forceinline__ void route(const float *logits, int *ids, float *shares, int *failed, int rows, int experts, int used,
                                      int normalize) {
    i64 row = (i64)blockIdx.x * (blockDim.x / 32) + warp_id();
    if (row >= rows) return;
    logits += row * experts, ids += row * used, shares += row * used;
    float last = INFINITE, highest = 0, total = 0;
    int last_id = -1;
    for (int rank = 0; rank < used; rank++) {
        /* The best of those that come after the last one in the order (larger, then lower index). */
        float best = -INFINITE;
        int id = experts;
        for (int e = lane_id(); e < experts; e += 32) {
            float z = logits[e];
            if (z != z) {
                *failed = 1;
                z = -INFINITE;
            }
            bool after = z < last || (z == last && e > last_id);
            if (after && (id == experts || z > best)) best = z, id = e;
        }
        for (int mask = 16; mask; mask /= 2) {
            float z = __shfl_xor_sync(EVERYONE, best, mask);
            int e = __shfl_xor_sync(EVERYONE, id, mask);
            if (e < experts && (id == experts || z > best || (z == best && e < id))) best = z, id = e;
        }
        if (rank == 0) highest = best;
        float weight = best == highest ? 1.0f : expf(best - highest);  // infinities too
        total += weight;
        if (lane_id() == 0) {
            ids[rank] = id;
            shares[rank] = weight;
        }
        last = best, last_id = id;
    }
    if (!normalize) {
        total = 0;
        for (int e = lane_id(); e < experts; e += 32) total += expf(logits[e] - highest);
        total = lanes_sum(total);
    }
    __syncwarp();
    for (int rank = lane_id(); rank < used; rank += 32) shares[rank] /= total;
}

/* A block to an expert: how many of ids [pairs] are it. */
__device__ __forceinline__ void expert_counts(const int *ids, int *counts, int pairs, int experts) {
    int count = 0;
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) count += ids[i] == (int)blockIdx.x;
    count = block_sum<8>(count);
    if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

/* A block to an expert: where its pairs begin is the sum of the counts before; then they are written in their order, so results do
   not depend on which block is first. tiles [most_tiles]: (expert, first, end, 0) of up to TILE_ROWS entries of order; the rest is empty. */
__device__ __forceinline__ void expert_order(const int *ids, const int *counts, int *order, int4 *tiles, int pairs, int experts,
                                             int most_tiles) {
    __shared__ int found[8];
    int expert = blockIdx.x, before = 0, tiles_before = 0, all_tiles = 0;
    for (int e = threadIdx.x; e < experts; e += blockDim.x) {
        int count = counts[e], needed = (count + TILE_ROWS - 1) / TILE_ROWS;
        before += e < expert ? count : 0;
        tiles_before += e < expert ? needed : 0;
        all_tiles += needed;
    }
    before = block_sum<8>(before);
    tiles_before = block_sum<8>(tiles_before);
    all_tiles = block_sum<8>(all_tiles);
    int first = before, end = before + counts[expert];
    for (int t = threadIdx.x; first + t * TILE_ROWS < end; t += blockDim.x)
        tiles[tiles_before + t] = int4{expert, first + t * TILE_ROWS, min(first + (t + 1) * TILE_ROWS, end), 0};
    for (int t = all_tiles + expert * blockDim.x + threadIdx.x; t < most_tiles; t += experts * blockDim.x) tiles[t] = int4{0, 0, 0, 0};
    for (int start = 0; start < pairs; start += blockDim.x) {
        int i = start + threadIdx.x;
        bool mine = i < pairs && ids[i] == expert;
        unsigned votes = __ballot_sync(EVERYONE, mine);
        if (lane_id() == 0) found[warp_id()] = __popc(votes);
        __syncthreads();
        int place = before + __popc(votes & ((1u << lane_id()) - 1));
        for (int w = 0; w < 8; w++) {
            place += w < warp_id() ? found[w] : 0;
            before += found[w];
        }
        if (mine) order[place] = i;
        __syncthreads();
    }
}

}  // namespace kernels
