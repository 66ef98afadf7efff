/* Operations on values [rows, width] of float32, element by element or row by row. */
#pragma once
#include "activations.cuh"

namespace kernels {

/* The element that this thread has to do. */
__device__ __forceinline__ i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

/* x [32 · blocks] to blocks of q8: a warp to a block. */
__device__ __forceinline__ void quantize(const float *x, s8 *codes, float4 *scales, i64 blocks) {
    i64 block = element() / 32;
    if (block < blocks) write_block(x[element()], codes, scales, block);
}

/* A block to a row: y = s / sqrt(mean(s²) + eps) · weight with s = x + add (add may be null), kept in sum unless that is null; sum may be
   x. Blocks of y go to codes and scales unless these are null; width is a multiple of 32 then. */
__device__ __forceinline__ void rms_norm(const float *x, const float *add, float *sum, const float *weight, float *y, s8 *codes,
                                         float4 *scales, float eps, int rows, int width) {
    i64 start = (i64)blockIdx.x * width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float s = x[start + i] + (add ? add[start + i] : 0.0f);
        if (sum) sum[start + i] = s;
        squares += s * s;
    }
    float scale = 1.0f / sqrtf(block_sum<8>(squares) / (float)width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float s = sum ? sum[start + i] : x[start + i] + (add ? add[start + i] : 0.0f);
        float value = s * scale * (weight ? weight[i] : 1.0f);
        y[start + i] = value;
        if (codes) write_block(value, codes, scales, (start + i) / 32);
    }
}

/* A block to a row: y = (x - mean) / sqrt(variance + eps) · weight + bias, of which bias may be null. Blocks of y as in `rms_norm`. */
__device__ __forceinline__ void layer_norm(const float *x, const float *weight, const float *bias, float *y, s8 *codes, float4 *scales,
                                           float eps, int rows, int width) {
    i64 start = (i64)blockIdx.x * width;
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += x[start + i];
    float mean = block_sum<8>(sum) / (float)width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) squares += (x[start + i] - mean) * (x[start + i] - mean);
    float scale = 1.0f / sqrtf(block_sum<8>(squares) / (float)width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float value = (x[start + i] - mean) * scale * weight[i] + (bias ? bias[i] : 0.0f);
        y[start + i] = value;
        if (codes) write_block(value, codes, scales, (start + i) / 32);
    }
}

/* A warp to a group of `width` elements and a rest that stays; weight [own, width] has one for each of `own` groups in turn, or is null
   for ones. y may be x. */
__device__ __forceinline__ void rms_norm_groups(const float *x, const float *weight, float *y, float eps, i64 groups, int width, int rest,
                                                int own) {
    i64 group = element() / 32;
    if (group >= groups) return;
    if (weight) weight += group % own * width;
    x += group * (width + rest), y += group * (width + rest);
    float squares = 0;
    for (int i = lane_id(); i < width; i += 32) squares += x[i] * x[i];
    float scale = 1.0f / sqrtf(lanes_sum(squares) / (float)width + eps);
    for (int i = lane_id(); i < width; i += 32) y[i] = x[i] * scale * (weight ? weight[i] : 1.0f);
    for (int i = lane_id(); i < rest; i += 32) y[width + i] = x[width + i];
}

/* table [rows, pairs] = (cos t, sin t) · magnitude, t = position · frequency (/ factor), in float64: positions may be large. */
__device__ __forceinline__ void angles(const int *positions, const double *frequencies, const float *factors, float2 *table,
                                       float magnitude, int rows, int pairs) {
    if (element() >= (i64)rows * pairs) return;
    int row = (int)(element() / pairs), pair = (int)(element() % pairs);
    double t = positions[row] * (factors ? frequencies[pair] / (double)factors[pair] : frequencies[pair]);
    table[element()] = make_float2((float)cos(t) * magnitude, (float)sin(t) * magnitude);
}

/* Each head of x [rows, heads · head_size] turned by the table, from its element `begin` on; elements before that and past the pairs are
   copied. A thread does one pair, or one other element. y may be x. */
template <bool INTERLEAVED>
__device__ __forceinline__ void rope(const float *x, const float2 *table, float *y, int rows, int heads, int head_size, int begin,
                                     int pairs) {
    int work = head_size - pairs;
    if (element() >= (i64)rows * heads * work) return;
    i64 head = element() / work;
    int i = (int)(element() % work);
    x += head * head_size, y += head * head_size;
    if (i >= pairs) {
        int other = i - pairs < begin ? i - pairs : i + pairs;
        y[other] = x[other];
        return;
    }
    x += begin, y += begin;
    float2 turn = table[head / heads * pairs + i];
    int first = INTERLEAVED ? 2 * i : i, second = INTERLEAVED ? 2 * i + 1 : i + pairs;
    float a = x[first], b = x[second];
    y[first] = a * turn.x - b * turn.y;
    y[second] = a * turn.y + b * turn.x;
}

__device__ __forceinline__ void add(const float *a, const float *b, float *y, i64 n) {
    if (element() < n) y[element()] = a[element()] + b[element()];
}

/* weight, a single number, may be null. */
__device__ __forceinline__ void scale(const float *x, const float *weight, float *y, float factor, i64 n) {
    if (element() < n) y[element()] = (weight ? factor * *weight : factor) * x[element()];
}

/* y [rows, width] = (1 + strength · ln(1 + (position + ahead) / length, whole)) · x. */
__device__ __forceinline__ void position_scale(const float *x, const int *positions, float *y, float strength, int length, int ahead,
                                               int rows, int width) {
    i64 i = element();
    if (i < (i64)rows * width) y[i] = (1.0f + strength * logf(1.0f + (float)((positions[i / width] + ahead) / length))) * x[i];
}

__device__ __forceinline__ void soft_cap(const float *x, float *y, float cap, i64 n) {
    if (element() < n) y[element()] = cap * tanhf(x[element()] / cap);
}

/* y = x, within ±limit. */
__device__ __forceinline__ void clamp(const float *x, float *y, float limit, i64 n) {
    if (element() < n) y[element()] = fmaxf(-limit, fminf(x[element()], limit));
}

/* x [rows, width] times a factor for each row, in place; where a factor is 0, x may be anything. */
__device__ __forceinline__ void scale_rows(float *x, const float *factors, int rows, int width) {
    i64 i = element();
    if (i < (i64)rows * width) x[i] = factors[i / width] == 0.0f ? 0.0f : factors[i / width] * x[i];
}

/* y = F(gate, up), and its blocks unless codes is null; n is a multiple of 32 then. */
template <class F>
__device__ __forceinline__ void gate(const float *gate, const float *up, float *y, s8 *codes, float4 *scales, i64 n) {
    i64 i = element();
    if (i >= n) return;
    float value = F::of(gate[i], up[i]);
    y[i] = value;
    if (codes) write_block(value, codes, scales, i / 32);
}

/* y [rows, width] = F(gate [rows], up). */
template <class F> __device__ __forceinline__ void gate_rows(const float *gate, const float *up, float *y, int rows, int width) {
    i64 i = element();
    if (i < (i64)rows * width) y[i] = F::of(gate[i / width], up[i]);
}

/* y [parts, width] = elements start … start + width of x [parts, x_width]. */
__device__ __forceinline__ void slice_parts(const float *x, float *y, i64 parts, int width, int x_width, int start) {
    i64 i = element();
    if (i < parts * width) y[i] = x[i / width * x_width + start + i % width];
}

__device__ __forceinline__ void pick_rows(const float *x, const int *pick, float *y, int picked, int width) {
    i64 i = element();
    if (i < (i64)picked * width) y[i] = x[(i64)pick[i / width] * width + i % width];
}

/* The last `rest` elements of each of so many heads, which have `inward` others in x and `outward` in y. */
__device__ __forceinline__ void copy_rest(const float *x, float *y, i64 heads, int inward, int outward, int rest) {
    i64 head = element() / rest, i = element() % rest;
    if (head < heads) y[head * (outward + rest) + outward + i] = x[head * (inward + rest) + inward + i];
}

/* y [rows, width] = Σ shares [rows, used] · x [rows · used, width], + add unless that is null. Where a share is 0, x may be anything;
   others count as 1 where x is `weighed` already. */
__device__ __forceinline__ void combine(const float *x, const float *shares, const float *add, float *y, int rows, int used, int width,
                                        int weighed) {
    i64 i = element();
    if (i >= (i64)rows * width) return;
    i64 row = i / width;
    float sum = 0;
    for (int s = 0; s < used; s++) {
        float share = shares[row * used + s];
        if (share != 0.0f) sum += (weighed ? 1.0f : share) * x[(row * used + s) * width + i % width];
    }
    y[i] = add ? sum + add[i] : sum;
}

}  // namespace kernels
