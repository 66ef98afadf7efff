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

}  // namespace kernels
