/* Weights of every GGUF block type as codes for integer products.

   A row is read in parts of 32 weights, W::SIZE / 32 to a block. A part is two halves of sixteen neighbouring weights,
   w = scale[half] · q + min[half] with q int8, whose place in the block is W::at(part, half). Halves are chosen so that a part comes out
   of sixteen neighbouring bytes where the type allows it; parts 4 n … 4 n + 3 always make up 128 neighbouring weights.
   W::GROUP is 16 where the halves have scales of their own and 32 where 32 neighbouring weights share one; W::MIN is whether min is not
   0: codes are left unsigned and the offset goes there. Byte layouts and formulas: quant/edgert_quant/blocks, and dequantize_row_* of
   ggml's ggml-quants.c for those that are not there. */
#pragma once
#include "tables.cuh"
#include "words.cuh"

struct Part {
    int q[8];  // the first four words are of half 0
    float scale[2], min[2];
};

/* A type of `size` weights in `bytes`. */
template <int size, int bytes, int group, bool has_min> struct Blocks {
    static constexpr bool FLOAT = false;
    static constexpr int SIZE = size, BYTES = bytes, GROUP = group, PARTS = size / 32;
    static constexpr bool MIN = has_min;
    static __device__ __forceinline__ int at(int part, int half) { return 32 * part + 16 * half; }
    static __device__ __forceinline__ void both(Part &p, float scale, float min) {
        p.scale[0] = p.scale[1] = scale;
        p.min[0] = p.min[1] = min;
    }
};

/* Byte j of sixteen holds weight j in its low and weight j + 16 in its high half. */
__device__ __forceinline__ void nibble_codes(const unsigned (&words)[4], Part &p) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        p.q[i] = words[i] & 0x0f0f0f0fu;
        p.q[4 + i] = words[i] >> 4 & 0x0f0f0f0fu;
    }
}
__device__ __forceinline__ void nibble_levels(const unsigned (&table)[4], const unsigned (&words)[4], Part &p) {
#pragma unroll
    for (int i = 0; i < 4; i++) look_up(table, words[i], p.q[i], p.q[4 + i]);
}
/* Bit 4 of code j is bit j of the word. */
__device__ __forceinline__ void fifth_bits(unsigned bits, Part &p) {
#pragma unroll
    for (int i = 0; i < 8; i++) p.q[i] |= spread_bits(bits >> 4 * i & 15) << 4;
}

struct Q4_0 : Blocks<32, 18, 32, true> {  // d half, codes 16: w = d (q - 8)
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        unsigned words[4];
        load_words(b + 2, words);
        nibble_codes(words, p);
        float d = load_half(b);
        both(p, d, -8.0f * d);
    }
};

struct Q4_1 : Blocks<32, 20, 32, true> {  // d, m halves, codes 16: w = d q + m
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        unsigned words[4];
        load_words(b + 4, words);
        nibble_codes(words, p);
        both(p, load_half(b), load_half(b + 2));
    }
};

struct Q5_0 : Blocks<32, 22, 32, true> {  // d half, fifth bits 4, codes 16: w = d (q - 16)
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        unsigned words[5], codes[4];
        load_words(b + 2, words);
        for (int i = 0; i < 4; i++) codes[i] = words[1 + i];
        nibble_codes(codes, p);
        fifth_bits(words[0], p);
        float d = load_half(b);
        both(p, d, -16.0f * d);
    }
};

struct Q5_1 : Blocks<32, 24, 32, true> {  // d, m halves, fifth bits 4, codes 16: w = d q + m
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        unsigned words[5], codes[4];
        load_words(b + 4, words);
        for (int i = 0; i < 4; i++) codes[i] = words[1 + i];
        nibble_codes(codes, p);
        fifth_bits(words[0], p);
        both(p, load_half(b), load_half(b + 2));
    }
};

struct Q8_0 : Blocks<32, 34, 32, false> {  // d half, signed codes 32: w = d q
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        load_words(b + 2, (unsigned(&)[8])p.q);
        both(p, load_half(b), 0.0f);
    }
};

struct IQ4_NL : Blocks<32, 18, 32, false> {  // d half, codes 16: w = d levels[q]
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        unsigned words[4];
        load_words(b + 2, words);
        nibble_levels(IQ4_LEVELS, words, p);
        both(p, load_half(b), 0.0f);
    }
};

struct MXFP4 : Blocks<32, 17, 32, false> {  // power 1, codes 16: w = 2^(e - 128) levels[q], levels are twice E2M1
    static __device__ __forceinline__ void decode(const u8 *b, int, Part &p) {
        unsigned words[4];
        load_words(b + 1, words);
        nibble_levels(E2M1_LEVELS, words, p);
        unsigned e = b[0];  // the power is e - 1 of floats; below that they are subnormal: 2^-127 is bit 22, 2^-128 bit 21
        both(p, __uint_as_float(e > 1 ? (e - 1) << 23 : 1u << (21 + e)), 0.0f);
    }
};

struct NVFP4 : Blocks<64, 36, 16, false> {  // scales 4 of E4M3 (unsigned, halved), codes 32: byte j of eight holds weights j and j + 8
    static __device__ __forceinline__ float widen(unsigned e) {
        float mantissa = (float)(e & 7), power = (float)(1 << (e >> 3 & 15));
        float x = e >> 3 & 15 ? (1.0f + mantissa * 0.125f) * power * 0.00390625f : mantissa * 0.0009765625f;
        return e == 0x7f ? 0.0f : x;
    }
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned words[4];
        load_words(b + 4 + 16 * part, words);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            look_up(E2M1_LEVELS, words[2 * half], p.q[4 * half], p.q[4 * half + 2]);
            look_up(E2M1_LEVELS, words[2 * half + 1], p.q[4 * half + 1], p.q[4 * half + 3]);
            p.scale[half] = widen(b[2 * part + half]);
            p.min[half] = 0.0f;
        }
    }
};

struct Q1_0 : Blocks<128, 18, 32, true> {  // d half, bits 16: w = d or -d
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned bits[1];
        load_words(b + 2 + 4 * part, bits);
#pragma unroll
        for (int i = 0; i < 8; i++) p.q[i] = spread_bits(bits[0] >> 4 * i & 15);
        float d = load_half(b);
        both(p, 2.0f * d, -d);
    }
};

struct Q2_0 : Blocks<64, 18, 32, true> {  // d half, codes of two bits 16, four neighbours to a byte: w = d (q - 1)
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned words[2];
        load_words(b + 2 + 8 * part, words);
#pragma unroll
        for (int i = 0; i < 8; i++) p.q[i] = spread_pairs(words[i / 4] >> 8 * (i % 4) & 255);
        float d = load_half(b);
        both(p, d, -d);
    }
};
