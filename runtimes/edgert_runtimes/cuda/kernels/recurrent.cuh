/* Operations with a state. A run (first row, rows, slot read, slot written) is a sequence of the batch: see `batches.runs_of`. Slot -1
   stands for zeros. The slot that is written may be the one that is read, and whoever reads an element of it is who writes it. */
#pragma once
#include "rows.cuh"

namespace kernels {

/* A thread to a channel of a run. y = f(bias + Σ_tap weight[channel, tap] · x[row + 1 - taps + tap]); state [slots, taps - 1, width] holds
   the rows before. bias may be null. */
__device__ __forceinline__ void short_conv(const float *x, const int4 *runs, const float *weight, const float *bias, float *state, float *y,
                                           int count, int width, int taps, int silu) {
    if (element() >= (i64)count * width) return;
    int4 run = runs[element() / width];
    int channel = (int)(element() % width);
    i64 slot = (i64)(taps - 1) * width;
    const float *before = state + run.z * slot + channel;
    float *after = state + run.w * slot + channel;
    x += (i64)run.x * width + channel, y += (i64)run.x * width + channel, weight += (i64)channel * taps;
    auto entered = [&](int row) {
        return row >= 0 ? x[(i64)row * width] : run.z < 0 ? 0.0f : before[(i64)(row + taps - 1) * width];
    };
    for (int row = 0; row < run.y; row++) {
        float sum = bias ? bias[channel] : 0.0f;
        for (int tap = 0; tap < taps; tap++) sum += weight[tap] * entered(row + 1 - taps + tap);
        y[(i64)row * width] = silu ? Silu::of(sum, 1.0f) : sum;
    }
    for (int place = 0; place < taps - 1; place++) after[(i64)place * width] = entered(run.y + 1 - taps + place);
}

/* What a row of a state is multiplied by. */
__device__ __forceinline__ float delta_decay(float slope, float z, float floor) {
    return expf(floor < 0.0f ? Sigmoid::of(slope * z, floor) : Softplus::of(z, slope));
}

/* A block to 32 columns of a head's matrix, in a run: see `ops.DeltaRule`. state [slots, heads, key_size, size]; a [rows, heads] or, with
   CHANNELS, [rows, heads · key_size]; b [rows, heads]; rows of q and k, key_heads heads of key_size (at most KEYS), are `keys_stride` floats
   apart, those of v, heads heads of `size`, `stride`. Each warp does eight columns, four lanes one of them: a lane keeps every fourth element
   in registers from row to row. */
template <int KEYS, bool CHANNELS>
__device__ __forceinline__ void delta_rule(const float *qs, const float *ks, const float *vs, const float *a, const float *b,
                                           const int4 *runs, const float *decay, const float *bias, float *state, float *y, int count,
                                           int heads, int key_heads, int key_size, int size, int tiled, int keys_stride, int stride,
                                           float floor) {
    constexpr int EACH = KEYS / 4, ROUNDS = (KEYS + 31) / 32;
    __shared__ float queries[4 * KEYS], all_keys[4 * KEYS], all_decays[CHANNELS ? 4 * KEYS : 1];  // every warp has its own
    float *q = queries + KEYS * warp_id(), *k = all_keys + KEYS * warp_id(), *g = all_decays + (CHANNELS ? KEYS * warp_id() : 0);
    int parts = (size + 31) / 32, column = blockIdx.x % parts * 32 + 8 * warp_id() + lane_id() / 4, quarter = lane_id() % 4;
    int head = blockIdx.x / parts % heads;
    int4 run = runs[blockIdx.x / parts / heads];
    int keys = tiled ? head % key_heads : head * key_heads / heads;
    bool inside = column < size;
    i64 slot = (i64)heads * key_size * size, start = (i64)head * key_size * size + column;
    float s[EACH];
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        int i = 4 * j + quarter;
        s[j] = run.z >= 0 && inside && i < key_size ? state[run.z * slot + start + (i64)i * size] : 0.0f;
    }
    for (i64 row = run.x; row < run.x + run.y; row++) {
        i64 own = row * keys_stride + keys * key_size;
        float squares_q = 0, squares_k = 0, mine_q[ROUNDS], mine_k[ROUNDS];
#pragma unroll
        for (int r = 0; r < ROUNDS; r++) {
            int i = lane_id() + 32 * r;
            mine_q[r] = i < key_size ? qs[own + i] : 0.0f, mine_k[r] = i < key_size ? ks[own + i] : 0.0f;
            squares_q += mine_q[r] * mine_q[r], squares_k += mine_k[r] * mine_k[r];
        }
        float scale_q = 1.0f / sqrtf((lanes_sum(squares_q) + 1e-6f) * (float)key_size), scale_k = 1.0f / sqrtf(lanes_sum(squares_k) + 1e-6f);
        /* The sums of the row before, which all lanes took part in, needed what is overwritten here. */
#pragma unroll
        for (int r = 0; r < ROUNDS; r++) {
            int i = lane_id() + 32 * r, channel = head * key_size + i;
            q[i] = mine_q[r] * scale_q, k[i] = mine_k[r] * scale_k;
            if (CHANNELS) g[i] = i < key_size ? delta_decay(decay[head], a[row * heads * key_size + channel] + bias[channel], floor) : 0.0f;
        }
        __syncwarp();
        float seen = 0, sum = 0, shrink = CHANNELS ? 1.0f : delta_decay(decay[head], a[row * heads + head] + bias[head], floor);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (CHANNELS) s[j] *= g[4 * j + quarter];
            seen += k[4 * j + quarter] * s[j];
        }
        seen = lanes_sum<4>(seen);
        float v = inside ? vs[row * stride + head * size + column] : 0.0f;
        float change = (v - shrink * seen) / (1.0f + expf(-b[row * heads + head]));
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            s[j] = shrink * s[j] + k[4 * j + quarter] * change;
            sum += q[4 * j + quarter] * s[j];
        }
        sum = lanes_sum<4>(sum);
        if (quarter == 0 && inside) y[(row * heads + head) * size + column] = sum;
    }
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        int i = 4 * j + quarter;
        if (run.y > 0 && inside && i < key_size) state[run.w * slot + start + (i64)i * size] = s[j];
    }
}

/* A warp to an element of a head, in a run: see `ops.Scan`. state [slots, heads, size, numbers], numbers at most 32 · PER_LANE; t [rows,
   heads], b and c [rows, groups · numbers], decay [heads, decays]. */
template <int PER_LANE>
__device__ __forceinline__ void scan(const float *x, const float *t, const float *b, const float *c, const int4 *runs, const float *decay,
                                     const float *bias, const float *skip, float *state, float *y, int count, int heads, int size,
                                     int groups, int numbers, int decays, float least) {
    i64 warp = (i64)blockIdx.x * (blockDim.x / 32) + warp_id(), width = (i64)heads * size;
    if (warp >= count * width) return;
    int element = (int)(warp % width), head = element / size;
    int4 run = runs[warp / width];
    int group = head * groups / heads;
    float s[PER_LANE];
#pragma unroll
    for (int k = 0; k < PER_LANE; k++) {
        int n = 32 * k + lane_id();
        s[k] = run.z < 0 || n >= numbers ? 0.0f : state[(run.z * width + element) * numbers + n];
    }
    for (i64 row = run.x; row < run.x + run.y; row++) {
        float z = t[row * heads + head] + bias[head], value = x[row * width + element], sum = 0;
        float span = fmaxf(Softplus::of(z, 1.0f), least);
#pragma unroll
        for (int k = 0; k < PER_LANE; k++) {
            int n = 32 * k + lane_id();
            if (n >= numbers) continue;
            i64 place = (row * groups + group) * numbers + n;
            s[k] = expf(span * decay[head * decays + (decays > 1 ? n : 0)]) * s[k] + span * value * b[place];
            sum += s[k] * c[place];
        }
        sum = lanes_sum(sum);
        if (lane_id() == 0) y[row * width + element] = sum + skip[head] * value;
    }
#pragma unroll
    for (int k = 0; k < PER_LANE; k++) {
        int n = 32 * k + lane_id();
        if (n < numbers && run.y > 0) state[(run.w * width + element) * numbers + n] = s[k];
    }
}

}  // namespace kernels
