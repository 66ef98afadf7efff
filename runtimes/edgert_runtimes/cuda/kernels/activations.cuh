/* Activations in blocks of 32 (q8): codes q, int8, and one float4 (d, s0, s1, 0) a block: x ≈ d q, s0 and s1 are d times the sums of the
   first and the second sixteen codes. It is ggml's q8_1 with the scale in float and the sum by halves, so that types with a minimum
   for every sixteen weights need no sums of their own. A block that holds a NaN or an infinity has NaN for d and the sums. */
#pragma once
#include "base.cuh"

/* One block by a warp: lane i gives element i of it. */
__device__ __forceinline__ void write_block(float x, s8 *codes, float4 *scales, i64 block) {
    float largest = lanes_max(fabsf(x));
    float d = largest / 127.0f;
    int q = d > 0.0f ? __float2int_rn(x * (1.0f / d)) : 0;
    q = q > 127 ? 127 : q < -127 ? -127 : q;
    float sum = lanes_sum<16>((float)q);
    float other = __shfl_xor_sync(EVERYONE, sum, 16);
    float poison = lanes_sum(x * 0.0f);  // 0, or NaN
    codes[32 * block + lane_id()] = (s8)q;
    if (lane_id() == 0) scales[block] = make_float4(d + poison, d * sum + poison, d * other + poison, 0.0f);
}
