/* Choosing tokens where the logits are: a block of threads to a row. */
#pragma once
#include "base.cuh"

namespace kernels {

constexpr int WARPS = 32;  // of a block

/* Larger keys are larger numbers, NaN aside; both zeros are one. */
__device__ __forceinline__ unsigned ordered(float x) {
    unsigned bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The lowest index of the largest of z [n], for every thread; `largest` is NaN if one is. */
__device__ __forceinline__ int find_largest(const float *z, int n, float &largest) {
    __shared__ u64 best[WARPS];
    u64 mine = 0;  // the key, and below it the distance of the index from the end
    bool nan = false;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        nan |= z[i] != z[i];
        u64 candidate = (u64)ordered(z[i]) << 32 | (unsigned)(n - i);
        mine = candidate > mine ? candidate : mine;
    }
    for (int mask = 16; mask; mask /= 2) {
        u64 other = __shfl_xor_sync(EVERYONE, mine, mask);
        mine = other > mine ? other : mine;
    }
    if (lane_id() == 0) best[warp_id()] = mine;
    int nans = block_sum<WARPS>((int)nan);
    for (int w = 0; w < WARPS; w++) mine = best[w] > mine ? best[w] : mine;
    int index = n - (int)(unsigned)mine;
    largest = nans ? NOT_A_NUMBER : z[index];
    return index;
}

/* tokens [rows] of logits [rows, vocabulary]; those that are certain are the same, but -1 where the largest is not finite. */
__device__ __forceinline__ void argmax(const float *logits, int *tokens, int *certain, int rows, int vocabulary) {
    float largest;
    int token = find_largest(logits + (i64)blockIdx.x * vocabulary, vocabulary, largest);
    if (threadIdx.x == 0) {
        tokens[blockIdx.x] = token;
        certain[blockIdx.x] = fabsf(largest) < INFINITE ? token : -1;
    }
}

/* The tokens that are left: those before a border in the order (larger logit, then lower index). */
struct Border {
    unsigned key;
    int last;  // of those whose key is the border's
    __device__ __forceinline__ bool holds(float z, int i) const { return ordered(z) > key || (ordered(z) == key && i <= last); }
};

/* Exclusive sum over the threads of the block, in their order; `total` is that of all. Between two calls of one T there must be a barrier. */
template <class T> __device__ T sum_before(T x, T &total) {
    __shared__ T sums[WARPS];
    T mine = x;
    for (int by = 1; by < 32; by *= 2) {
        T other = __shfl_up_sync(EVERYONE, x, by);
        if (lane_id() >= by) x += other;
    }
    if (lane_id() == 31) sums[warp_id()] = x;
    __syncthreads();
    T before = 0;
    total = 0;
    for (int w = 0; w < WARPS; w++) {
        before += w < warp_id() ? sums[w] : 0;
        total += sums[w];
    }
    return before + x - mine;
}

/* What a token counts for: one, or its probability in steps of 2^-40 of the largest (whole numbers: sums do not depend on their order). */
template <bool COUNT> __device__ __forceinline__ u64 mass(float z, float largest) {
    return COUNT ? 1 : (u64)(expf(z - largest) * 1.099511627776e12f);
}

/* Shares nearer than this to where a draw changes are left open: what float32 adds to the error of exponentials (a few 2^-24 each, and
   of arguments up to 50), and masses to that of sums (2^-40 for each of 2^18 tokens). */
constexpr double DOUBT = 8e-6;

/* The border after the fewest tokens whose masses reach `wanted` (at least 1, at most the mass of all that `border` holds). Keys are found
   eight bits at a time, from the top, by the masses that begin with them. `spare` is how far `wanted` is from where the border changes. */
template <bool COUNT>
__device__ Border narrow(const float *z, int n, float largest, u64 wanted, Border border, u64 &spare) {
    __shared__ u64 masses[256];
    __shared__ u64 left, distance;
    __shared__ unsigned digit;
    __shared__ int last;
    unsigned prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) masses[threadIdx.x] = 0;
        if (threadIdx.x == 0) last = n, distance = 0;
        __syncthreads();
        /* Neighbours often share a digit: a run of them is added up before it is given to all. */
        u64 run = 0;
        unsigned running = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            unsigned key = ordered(z[i]);
            if (!border.holds(z[i], i) || (shift < 24 && key >> (shift + 8) != prefix)) continue;
            unsigned d = key >> shift & 255;
            if (d != running) {
                if (run) atomicAdd(&masses[running], run);
                run = 0, running = d;
            }
            run += mass<COUNT>(z[i], largest);
        }
        if (run) atomicAdd(&masses[running], run);
        __syncthreads();
        if (threadIdx.x == 0) {
            u64 rest = wanted;
            int d = 255;
            while (d > 0 && masses[d] < rest) rest -= masses[d--];
            left = rest, digit = d;
        }
        __syncthreads();
        prefix = prefix << 8 | digit;
        wanted = left;
    }
    /* `wanted` is left for those whose key is the prefix: so many of them, by index. Each thread looks at neighbours. */
    int each = (n + blockDim.x - 1) / blockDim.x, start = threadIdx.x * each, count = 0, all;
    u64 single = 1;
    for (int i = start; i < start + each && i < n; i++)
        if (ordered(z[i]) == prefix && border.holds(z[i], i)) {
            count++;
            single = mass<COUNT>(z[i], largest);
        }
    int before = sum_before(count, all);
    if (count) {
        u64 needed = single ? (wanted + single - 1) / single : 1;
        u64 over = single * needed - min(wanted, single * needed);
        for (int i = start; i < start + each && i < n; i++)
            if (ordered(z[i]) == prefix && border.holds(z[i], i) && (u64)++before == needed) {
                last = i;
                distance = min(over, single - min(over, single));
            }
    }
    __syncthreads();
    spare = distance;
    return {prefix, last};
}

/* tokens [rows] drawn from logits [rows, vocabulary] as edgert.engine.sampling draws, but for the rounding of probabilities: top_k (0: all),
   top_p, min_p, temperature (0: the largest), then numbers in [0, 1). `certain` has -1 in place of those that exact arithmetic might draw
   otherwise, and of rows whose largest is not finite. */
__device__ __forceinline__ void sample(const float *logits, const float *temperatures, const int *top_ks, const float *top_ps,
                                       const float *min_ps, const double *numbers, int *tokens, int *certain, int rows, int vocabulary) {
    __shared__ int chosen;
    __shared__ bool open;
    int row = blockIdx.x, n = vocabulary;
    const float *z = logits + (i64)row * n;
    float largest, temperature = temperatures[row];
    int token = find_largest(z, n, largest);
    bool finite = fabsf(largest) < INFINITE;
    if (threadIdx.x == 0) {
        tokens[row] = token;
        certain[row] = finite ? token : -1;
    }
    if (!finite || temperature == 0.0f) return;

    Border border{0, n};
    u64 spare;
    double unsure = 0;  // of the sum of weights, because of the border
    int top_k = top_ks[row];
    if (top_k > 0 && top_k < n) border = narrow<true>(z, n, largest, top_k, border, spare);
    if (top_ps[row] < 1.0f) {
        u64 sum = 0, all;
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            if (border.holds(z[i], i)) sum += mass<false>(z[i], largest);
        sum_before(sum, all);
        u64 wanted = (u64)ceil((double)top_ps[row] * (double)all);
        border = narrow<false>(z, n, largest, wanted < 1 ? 1 : wanted > all ? all : wanted, border, spare);
        if (wanted > 1 && (double)spare < DOUBT * (double)all) {  // a few tokens like the last may come or go
            double single = (double)mass<false>(z[border.last], largest);
            unsure = (DOUBT * (double)all / single + 1) * expf((z[border.last] - largest) / temperature);
        }
    }
    double floor = min_ps[row] > 0.0f ? log((double)min_ps[row]) : -(double)INFINITE;
    floor = (double)largest + max(floor, -50.0 * temperature);  // less than e^-50 of the largest is never drawn

    int each = (n + blockDim.x - 1) / blockDim.x, start = threadIdx.x * each;
    double sum = 0, all;
    for (int i = start; i < start + each && i < n; i++)
        if (border.holds(z[i], i) && z[i] >= floor) sum += expf((z[i] - largest) / temperature);
    double before = sum_before(sum, all), height = numbers[row] * all;
    if (threadIdx.x == 0) chosen = token, open = true;
    __syncthreads();
    if (sum > 0 && before <= height && height < before + sum)
        for (int i = start; i < start + each && i < n; i++)
            if (border.holds(z[i], i) && z[i] >= floor) {
                double weight = expf((z[i] - largest) / temperature);
                bool near = before > 0 && height - before < DOUBT * all + unsure;
                before += weight;
                chosen = i;
                if (before <= height) continue;
                bool last = unsure == 0 && all - before < 1e-9 * all;
                open = near || (!last && before - height < DOUBT * all + unsure);
                break;
            }
    __syncthreads();
    if (threadIdx.x == 0) {
        tokens[row] = chosen;
        certain[row] = open ? -1 : chosen;
    }
}

}  // namespace kernels
