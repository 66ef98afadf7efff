/* What adapters add to products: y += (x aᵀ) b, with the matrices of each row's own adapter. Rows whose adapter is below 0 stay as they are.
   `pick` names the rows of the batch that rows of x are, or is null where they are all of them. */
#pragma once
#include "rows.cuh"

namespace kernels {

__device__ __forceinline__ int adapter_of(const int *adapters, const int *pick, i64 row) { return adapters[pick ? pick[row] : row]; }

/* A warp to a number of inner [rows, rank] = x [rows, k] · a [adapters, rank, k]. */
__device__ __forceinline__ void low_rank_inward(const float *x, const float *a, const int *adapters, const int *pick, float *inner, int rows,
                                                int rank, int k) {
    i64 number = element() / 32, row = number / rank;
    if (row >= rows) return;
    int adapter = adapter_of(adapters, pick, row);
    if (adapter < 0) return;
    x += row * k, a += ((i64)adapter * rank + number % rank) * k;
    float sum = 0;
    for (int i = lane_id(); i < k; i += 32) sum += x[i] * a[i];
    sum = lanes_sum(sum);
    if (lane_id() == 0) inner[number] = sum;
}

/* out [rows, width] = y + inner [rows, rank] · b [adapters, rank, width]; out may be y. */
__device__ __forceinline__ void low_rank_outward(const float *inner, const float *b, const int *adapters, const int *pick, const float *y,
                                                 float *out, int rows, int rank, int width) {
    i64 i = element(), row = i / width;
    if (row >= rows) return;
    int adapter = adapter_of(adapters, pick, row);
    float sum = y[i];
    if (adapter >= 0)
        for (int r = 0; r < rank; r++) sum += inner[row * rank + r] * b[((i64)adapter * rank + r) * width + i % width];
    out[i] = sum;
}

}  // namespace kernels
