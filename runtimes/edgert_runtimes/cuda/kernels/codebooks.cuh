/* The types whose codes are points of a grid: eight weights (IQ1, IQ2) or four (IQ3) to an index, signs beside them or a shift.
   See blocks.cuh for what a part is, and unpack_grid of edgert_quant.blocks for the layouts. */
#pragma once
#include "blocks.cuh"

/* Eight weights from a grid of two words a point. */
__device__ __forceinline__ void signed_point(const unsigned *grid, unsigned index, unsigned signs, int *q) {
    q[0] = negate_bytes(grid[2 * index], signs);
    q[1] = negate_bytes(grid[2 * index + 1], signs >> 4);
}

struct IQ2_XXS : Blocks<256, 66, 32, false> {  // d, then for 32 weights: indices 4, word of 4 · 7 signs and scale s: d (1/2 + s) / 4
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned words[2];
        load_words(b + 2 + 8 * part, words);
#pragma unroll
        for (int i = 0; i < 4; i++)
            signed_point(GRID_IQ2_XXS, words[0] >> 8 * i & 255, eighth_sign(words[1] >> 7 * i & 127), &p.q[2 * i]);
        both(p, load_half(b) * (0.5f + (float)(words[1] >> 28)) * 0.25f, 0.0f);
    }
};

/* Scales of sixteen weights: the low half of a byte, then the high one. */
__device__ __forceinline__ void scales_of_sixteen(float d, unsigned byte, Part &p) {
    p.scale[0] = d * (0.5f + (float)(byte & 15)) * 0.25f;
    p.scale[1] = d * (0.5f + (float)(byte >> 4)) * 0.25f;
    p.min[0] = p.min[1] = 0.0f;
}

struct IQ2_XS : Blocks<256, 74, 16, false> {  // d, 32 times nine bits of index and seven signs, scales 8
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned code = load_u16(b + 2 + 8 * part + 2 * i);
            signed_point(GRID_IQ2_XS, code & 511, eighth_sign(code >> 9), &p.q[2 * i]);
        }
        scales_of_sixteen(load_half(b), b[66 + part], p);
    }
};

struct IQ2_S : Blocks<256, 82, 16, false> {  // d, indices 32, signs 32, bits 8 and 9 of indices 8, scales 8
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned low[1], signs[1], high = b[66 + part];
        load_words(b + 2 + 4 * part, low);
        load_words(b + 34 + 4 * part, signs);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned index = (low[0] >> 8 * i & 255) | (high >> 2 * i & 3) << 8;
            signed_point(GRID_IQ2_S, index, signs[0] >> 8 * i & 255, &p.q[2 * i]);
        }
        scales_of_sixteen(load_half(b), b[74 + part], p);
    }
};

struct IQ3_XXS : Blocks<256, 98, 32, false> {  // d, indices 64, words 8 of 4 · 7 signs and scale s: d (1/2 + s) / 2
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned index[2], word[1];
        load_words(b + 2 + 8 * part, index);
        load_words(b + 66 + 4 * part, word);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            unsigned signs = eighth_sign(word[0] >> 7 * (i / 2) & 127) >> 4 * (i % 2);
            p.q[i] = negate_bytes(GRID_IQ3_XXS[index[i / 4] >> 8 * (i % 4) & 255], signs);
        }
        both(p, load_half(b) * (0.5f + (float)(word[0] >> 28)) * 0.5f, 0.0f);
    }
};

struct IQ3_S : Blocks<256, 110, 32, false> {  // d, indices 64, their bits 8 in 8, signs 32, scales 4 (halves of bytes): d (1 + 2 s)
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned low[2], signs[1], high = b[66 + part];
        load_words(b + 2 + 8 * part, low);
        load_words(b + 74 + 4 * part, signs);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            unsigned index = (low[i / 4] >> 8 * (i % 4) & 255) | (high >> i & 1) << 8;
            p.q[i] = negate_bytes(GRID_IQ3_S[index], signs[0] >> 4 * i);
        }
        both(p, load_half(b) * (float)(1 + 2 * (b[106 + part / 2] >> 4 * (part & 1) & 15)), 0.0f);
    }
};

/* IQ1: w = scale (g + shift) with g in -1, 0, 1 and a shift of an eighth up or down. Grids hold 8 (g + 1), so q = 8 g + 9 ± 1, less 9. */
__device__ __forceinline__ void shifted_point(unsigned index, bool down, int *q) {
    unsigned shift = down ? 0 : 0x02020202u;
    q[0] = GRID_IQ1_S[2 * index] + shift;
    q[1] = GRID_IQ1_S[2 * index + 1] + shift;
}

struct IQ1_S : Blocks<256, 50, 32, true> {  // d, indices 32, words 8 of 4 · 3 more bits, scale s (3 bits) and shift: d (1 + 2 s)
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned low[1], high = load_u16(b + 34 + 2 * part);
        load_words(b + 2 + 4 * part, low);
#pragma unroll
        for (int i = 0; i < 4; i++)
            shifted_point((low[0] >> 8 * i & 255) | (high >> 3 * i & 7) << 8, high >> 15, &p.q[2 * i]);
        float scale = load_half(b) * (float)(1 + 2 * (high >> 12 & 7)) * 0.125f;
        both(p, scale, -9.0f * scale);
    }
};

struct IQ1_M : Blocks<256, 56, 16, true> {  // indices 32, nibbles 32 of three more bits and shift, words 4 of four scales
    /* Scales have three bits, for sixteen weights each; d is a half whose four nibbles are the top ones of the four words. */
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned low[1], high = load_u16(b + 32 + 2 * part), words[2];
        load_words(b + 4 * part, low);
        load_words(b + 48, words);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned nibble = high >> 4 * i & 15;
            shifted_point((low[0] >> 8 * i & 255) | (nibble & 7) << 8, nibble & 8, &p.q[2 * i]);
        }
        unsigned d = (words[0] >> 12 & 15) | (words[0] >> 28) << 4 | (words[1] >> 12 & 15) << 8 | (words[1] >> 28) << 12;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int group = 2 * part + half;
            unsigned word = words[group / 8] >> 16 * (group / 4 % 2);
            p.scale[half] = half_to_float((u16)d) * (float)(1 + 2 * (word >> 3 * (group % 4) & 7)) * 0.125f;
            p.min[half] = -9.0f * p.scale[half];
        }
    }
};
