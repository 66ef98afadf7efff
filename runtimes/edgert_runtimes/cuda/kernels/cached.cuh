/* Reading a cache of keys or values (see cache.cuh): eight neighbouring elements at once, and where a position lies. */
#pragma once
#include "types.cuh"

/* Elements i … i + 7 of a row, i a multiple of eight. */
template <class W> __device__ __forceinline__ void load8(const u8 *row, int i, float (&x)[8]) {
    if constexpr (W::FLOAT && W::BYTES == 2) {
        unsigned words[4];
        load_aligned(row + 2 * i, words);
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = W::value(words[j / 2] >> 16 * (j % 2));
    } else if constexpr (W::FLOAT) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float4 w = W::load4(row, i + 4 * half);
            x[4 * half] = w.x, x[4 * half + 1] = w.y, x[4 * half + 2] = w.z, x[4 * half + 3] = w.w;
        }
    } else {
        const u8 *block = row + i / 32 * W::BYTES;
        constexpr bool NIBBLES = W::BYTES == Q4_0::BYTES;
        float d = load_half(block);
        unsigned words[2];
        load_words(block + 2 + i % (NIBBLES ? 16 : 32), words);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            unsigned byte = words[j / 4] >> 8 * (j % 4);
            x[j] = d * (NIBBLES ? (float)((int)(byte >> i % 32 / 16 * 4 & 15) - 8) : (float)(s8)byte);
        }
    }
}

/* The blocks of one sequence: position p is at slot table[p / size] · size + p % size. */
struct Table {
    const int *blocks;
    int size;
    __device__ __forceinline__ i64 slot(int position) const { return (i64)blocks[position / size] * size + position % size; }
};

/* A score within its cap, if that is not 0. */
__device__ __forceinline__ float capped(float score, float cap) { return cap != 0.0f ? cap * tanhf(score / cap) : score; }

/* The first position that a row attends to: there is a window of so many positions, or, where it is negative, chunks, or neither. */
__device__ __forceinline__ int first_seen(int position, int window) {
    if (window < 0) return position - position % -window;
    return window && position >= window ? position - window + 1 : 0;
}

/* A softmax under way: the highest score so far, and the sum of e^(score - highest). */
struct Softmax {
    float highest, sum;
    /* What e^-highest is multiplied with when more scores come, of which `top` is the highest. Nothing but -∞ so far counts as 0. */
    __device__ __forceinline__ float raise(float top) {
        float before = highest;
        highest = fmaxf(highest, top);
        return before == -INFINITE ? 0.0f : expf(before - highest);
    }
    __device__ __forceinline__ float weight(float score) const { return score == -INFINITE ? 0.0f : expf(score - highest); }
};
