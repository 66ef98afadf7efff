/* The types whose blocks hold 256 weights with scales on a grid: see blocks.cuh for what a part is. */
#pragma once
#include "blocks.cuh"

/* Types of two bits: byte 32 h + l holds weights 128 h + 32 s + l in its bits 2 s. A part is sixteen bytes and two of the shifts s. */
template <int bytes, int group> struct TwoBits : Blocks<256, bytes, group, true> {
    static __device__ __forceinline__ int bytes_of(int part) { return 32 * (part / 4) + 16 * (part & 1); }
    static __device__ __forceinline__ int shift(int part, int half) { return (part & 2) + half; }
    static __device__ __forceinline__ int at(int part, int half) {
        return 128 * (part / 4) + 32 * shift(part, half) + 16 * (part & 1);
    }
    static __device__ __forceinline__ void codes(const u8 *qs, int part, Part &p) {
        unsigned words[4];
        load_words(qs + bytes_of(part), words);
#pragma unroll
        for (int i = 0; i < 8; i++) p.q[i] = words[i % 4] >> 2 * shift(part, i / 4) & 0x03030303u;
    }
};

struct Q2_K : TwoBits<84, 16> {  // scales 16, codes 64, d, dmin: w = d (scale & 15) q - dmin (scale >> 4)
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        codes(b + 16, part, p);
        float d = load_half(b + 80), dmin = load_half(b + 82);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned scale = b[at(part, half) / 16];
            p.scale[half] = d * (float)(scale & 15);
            p.min[half] = -dmin * (float)(scale >> 4);
        }
    }
};

struct Q3_K : TwoBits<110, 16> {  // third bits 32, codes 64, scales 12, d: w = d (scale - 32) (q - 4)
    /* Bit g of byte l is of weight 32 g + l. Scales 0-7 have their low four bits in the low halves of bytes 0-7, scales 8-15 in the
       high ones; the upper two bits of scale 4 k + i are bits 2 k of byte 8 + i. */
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        codes(b + 32, part, p);
        unsigned third[4];
        load_words(b + 16 * (part & 1), third);
        float d = load_half(b + 108);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int place = at(part, half), group = place / 16;
            unsigned low = b[96 + (group & 7)] >> 4 * (group / 8) & 15, high = b[104 + (group & 3)] >> 2 * (group / 4) & 3;
            p.scale[half] = d * (float)((int)(low | high << 4) - 32);
            p.min[half] = -4.0f * p.scale[half];
#pragma unroll
            for (int i = 0; i < 4; i++) p.q[4 * half + i] |= (third[i] >> place / 32 & 0x01010101u) << 2;
        }
    }
};

struct TQ2_0 : TwoBits<66, 32> {  // codes 64, d: w = d (q - 1)
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        codes(b, part, p);
        float d = load_half(b + 64);
        both(p, d, -d);
    }
};

/* Types of four bits: byte 32 c + l holds weights 64 c + l and 64 c + 32 + l. A part is sixteen bytes, half 1 their high halves.
   d and dmin are halves, then 12 bytes of eight scales and minima of six bits: bytes 0-3 hold scales 0-3 and bytes 4-7 minima 0-3 in
   their low six bits; byte 8 + i the low four bits of scale 4 + i and of minimum 4 + i, whose upper two bits are those of bytes i and
   4 + i. w = d scale q - dmin min. */
template <int bytes, int qs> struct FourBits : Blocks<256, bytes, 32, true> {
    static __device__ __forceinline__ int at(int part, int half) { return 64 * (part / 2) + 32 * half + 16 * (part & 1); }
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned words[4], head[4];
        load_aligned(b + qs + 16 * part, words);
        nibble_codes(words, p);
        load_aligned(b, head);
        float d = half_to_float((u16)head[0]), dmin = half_to_float((u16)(head[0] >> 16));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int group = 2 * (part / 2) + half, shift = 8 * (group & 3);
            unsigned a = head[1] >> shift & 255, c = head[2] >> shift & 255, e = head[3] >> shift & 255;
            unsigned scale = group < 4 ? a & 63 : (e & 15) | (a >> 6) << 4;
            unsigned min = group < 4 ? c & 63 : e >> 4 | (c >> 6) << 4;
            p.scale[half] = d * (float)scale;
            p.min[half] = -dmin * (float)min;
        }
    }
};

struct Q4_K : FourBits<144, 16> {};  // d, dmin, scales 12, codes 128

struct Q5_K : FourBits<176, 48> {  // d, dmin, scales 12, fifth bits 32 (bit g of byte l is of weight 32 g + l), codes 128
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        FourBits<176, 48>::decode(b, part, p);
        unsigned fifth[4];
        load_aligned(b + 16 + 16 * (part & 1), fifth);
#pragma unroll
        for (int i = 0; i < 8; i++) p.q[i] |= (fifth[i % 4] >> (2 * (part / 2) + i / 4) & 0x01010101u) << 4;
    }
};

struct Q6_K : Blocks<256, 210, 16, true> {  // low 128, high 64, scales 16 (signed), d: w = d scale (q - 32)
    /* Of weight 128 h + 32 s + l the low four bits are in byte 64 h + 32 (s % 2) + l (the low half for s < 2), the upper two in bits 2 s
       of byte 32 h + l. A part is sixteen bytes of the former; half 1 has s + 2. */
    static __device__ __forceinline__ int at(int part, int half) {
        return 128 * (part / 4) + 32 * (part / 2 % 2 + 2 * half) + 16 * (part & 1);
    }
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned low[4], high[4];
        load_words(b + 16 * part, low);
        load_words(b + 128 + 32 * (part / 4) + 16 * (part & 1), high);
        nibble_codes(low, p);
        float d = load_half(b + 208);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int shift = 2 * (part / 2 % 2 + 2 * half);
#pragma unroll
            for (int i = 0; i < 4; i++) p.q[4 * half + i] |= (high[i] >> shift & 0x03030303u) << 4;
            p.scale[half] = d * (float)(s8)b[192 + at(part, half) / 16];
            p.min[half] = -32.0f * p.scale[half];
        }
    }
};

struct IQ4_XS : Blocks<256, 136, 32, false> {  // d, high bits of scales 2, low bits 4, codes 128: w = d (scale - 32) levels[q]
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
        unsigned words[4];
        load_words(b + 8 + 16 * part, words);
        nibble_levels(IQ4_LEVELS, words, p);
        unsigned low = b[4 + part / 2] >> 4 * (part & 1) & 15, high = load_u16(b + 2) >> 2 * part & 3;
        both(p, load_half(b) * (float)((int)(low | high << 4) - 32), 0.0f);
    }
};

struct TQ1_0 : Blocks<256, 54, 32, true> {  // five digits of three to a byte: 48 bytes, then four digits: 4 bytes; d: w = d (q - 1)
    /* Digit n of byte b is the upper byte of 3 (b 3^n mod 256). Weights 32 n + l are of bytes l < 32, weights 160 + 16 n + l of bytes
       32 + l, weights 240 + 4 n + l of the last four. */
    static __device__ __forceinline__ unsigned digits(unsigned word, unsigned power) {
        unsigned even = (word & 0x00ff00ffu) * power & 0x00ff00ffu, odd = (word >> 8 & 0x00ff00ffu) * power & 0x00ff00ffu;
        return (even * 3 >> 8 & 0x00ff00ffu) | (odd * 3 & 0xff00ff00u);
    }
    static __device__ __forceinline__ void decode(const u8 *b, int part, Part &p) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int sixteen = 2 * part + half, digit = sixteen < 10 ? sixteen / 2 : sixteen - 10;
            unsigned power = digit == 0 ? 1 : digit == 1 ? 3 : digit == 2 ? 9 : digit == 3 ? 27 : 81;
            unsigned words[4], last[1];
            load_words(b + (sixteen < 10 ? 16 * (sixteen & 1) : 32), words);
            load_words(b + 48, last);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned tail = i == 0 ? 1 : i == 1 ? 3 : i == 2 ? 9 : 27;
                p.q[4 * half + i] = sixteen < 15 ? digits(words[i], power) : digits(last[0], tail);
            }
        }
        float d = load_half(b + 52);
        both(p, d, -d);
    }
};
