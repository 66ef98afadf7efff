/* Which experts a row goes to, and which rows an expert gets. */
#pragma once
#include "base.cuh"

namespace kernels {

/* A value and where it is; of two the larger one is better, then that with the lower index. An index of `none` is no value. */
struct Ranked {
    float value;
    int index;
};
__device__ __forceinline__ bool better(Ranked a, Ranked b, int none) {
    return a.index != none && (b.index == none || a.value > b.value || (a.value == b.value && a.index < b.index));
}
__device__ __forceinline__ Ranked lanes_best(Ranked x, int none) {
    for (int mask = 16; mask; mask /= 2) {
        Ranked other = {__shfl_xor_sync(EVERYONE, x.value, mask), __shfl_xor_sync(EVERYONE, x.index, mask)};
        if (better(other, x, none)) x = other;
    }
    return x;
}

/* The best of values value(first) to value(end - 1) that come after `last` in the order; end if there is none. */
template <class Values> __device__ __forceinline__ Ranked best_after(Ranked last, int first, int end, Values value) {
    Ranked best = {-INFINITE, end};
    for (int e = first + lane_id(); e < end; e += 32) {
        Ranked x = {value(e), e};
        bool after = x.value < last.value || (x.value == last.value && e > last.index);
        if (after && better(x, best, end)) best = x;
    }
    return lanes_best(best, end);
}

/* A warp to a row of logits [rows, experts]: the `used` best experts, the lower index first among equals, and their weights, as
   edgert_models.router.Router says; bias and expert_scale may be null, and there are at most 32 groups. A NaN counts as minus infinity, and sets
   *failed to 1. Of the first *real rows, the others only pad a batch, load [experts] counts the experts. */
__device__ __forceinline__ void route(const float *logits, int *ids, float *shares, int *failed, int rows, int experts, int used,
                                      const float *bias, int bias_logits, const float *expert_scale, const int *real, u64 *load, int sigmoid,
                                      int normalize, int groups, int groups_used, int group_best, float epsilon, float scale, float band) {
    i64 row = (i64)blockIdx.x * (blockDim.x / 32) + warp_id();
    if (row >= rows) return;
    logits += row * experts, ids += row * used, shares += row * used;
    auto logit = [&](int e) {
        float z = logits[e];
        if (z != z) {
            *failed = 1;
            z = -INFINITE;
        }
        return z;
    };
    float largest = -INFINITE, sum = 1;
    for (int e = lane_id(); e < experts; e += 32) largest = fmaxf(largest, logit(e));
    largest = lanes_max(largest);
    bool limited = groups_used < groups, plain = !sigmoid && normalize && epsilon == 0 && !bias && !limited;
    auto score = [&](int e) {
        float z = logit(e);
        if (sigmoid) return 1.0f / (1.0f + expf(-z));
        return (z == largest ? 1.0f : expf(z - largest)) / sum;  // the largest may be infinite
    };
    if (!sigmoid && !plain) {
        float total = 0;
        for (int e = lane_id(); e < experts; e += 32) total += score(e);
        sum = lanes_sum(total);
    }
    auto biased = [&](int e) { return (bias_logits ? logit(e) : score(e)) + bias[e]; };
    unsigned kept = EVERYONE;
    if (limited) {
        auto ranked = [&](int e) { return bias ? biased(e) : score(e); };
        int size = experts / groups;
        Ranked mine = {0, groups};  // the group of this lane
        for (int group = 0; group < groups; group++) {
            Ranked best = best_after({INFINITE, -1}, group * size, (group + 1) * size, ranked);
            float total = best.value;
            if (group_best > 1) total += best_after(best, group * size, (group + 1) * size, ranked).value;
            if (lane_id() == group) mine = {total, group};
        }
        kept = 0;
        for (int i = 0; i < groups_used; i++) {
            int group = lanes_best(mine, groups).index;
            kept |= 1u << group;
            if (lane_id() == group) mine.index = groups;
        }
    }
    auto choice = [&](int e) {
        if (limited && !(kept >> (e / (experts / groups)) & 1)) return -INFINITE;
        return bias ? biased(e) : logit(e);
    };
    Ranked last = {INFINITE, -1};
    float total = 0;
    for (int rank = 0; rank < used; rank++) {
        last = best_after(last, 0, experts, choice);
        float weight = score(last.index);
        if (band > 0) {  // a sparse mixer: among it and the worse ones that are near
            float near = 0;
            for (int e = lane_id(); e < experts; e += 32) {
                float z = logit(e);
                bool before = z > last.value || (z == last.value && e < last.index);
                if (!before && last.value - z <= band * fmaxf(fabsf(z), last.value)) near += expf(z - last.value);
            }
            weight = 1.0f / lanes_sum(near);
        }
        total += weight;
        if (lane_id() == 0) {
            ids[rank] = last.index;
            shares[rank] = weight;
        }
    }
    __syncwarp();
    float divisor = normalize ? total + epsilon : 1.0f;
    for (int rank = lane_id(); rank < used; rank += 32) {
        shares[rank] = scale * (shares[rank] / divisor) * (expert_scale ? expert_scale[ids[rank]] : 1.0f);
        if (row < *real) atomicAdd(&load[ids[rank]], (u64)1);
    }
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
