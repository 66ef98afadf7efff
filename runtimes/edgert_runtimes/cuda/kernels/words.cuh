/* Bytes of weight blocks into registers. Blocks of most types lie at odd addresses: rows are read by aligned words, shifted. */
#pragma once
#include "base.cuh"

/* COUNT words from any address. The aligned words read have at least one byte that was asked for: they never leave an allocation. */
template <int COUNT> __device__ __forceinline__ void load_words(const u8 *from, unsigned (&to)[COUNT]) {
    const unsigned *aligned = (const unsigned *)((u64)from & ~3ull);
    unsigned shift = 8 * ((u64)from & 3);
    unsigned low = aligned[0];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        unsigned high = i + 1 < COUNT || shift ? aligned[i + 1] : 0;
        to[i] = __funnelshift_r(low, high, shift);
        low = high;
    }
}

/* The same from an address that is a multiple of 16. */
__device__ __forceinline__ void load_aligned(const u8 *from, unsigned (&to)[4]) {
    uint4 words = *(const uint4 *)from;
    to[0] = words.x, to[1] = words.y, to[2] = words.z, to[3] = words.w;
}

__device__ __forceinline__ u16 load_u16(const u8 *from) { return *(const u16 *)from; }
__device__ __forceinline__ float load_half(const u8 *from) { return half_to_float(load_u16(from)); }

/* Four bits to four bytes of 0 or 1. The product puts bit i at 7 i + i; its other bits are masked away. */
__device__ __forceinline__ unsigned spread_bits(unsigned four) { return four * 0x00204081u & 0x01010101u; }

/* Four codes of two bits, low bits first, to four bytes. */
__device__ __forceinline__ unsigned spread_pairs(unsigned byte) {
    return (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u;
}

/* Eight nibbles as indices into a table of sixteen bytes: those of the low halves of the four bytes, and of the high halves. */
__device__ __forceinline__ void look_up(const unsigned (&table)[4], unsigned nibbles, int &low, int &high) {
    unsigned index = nibbles & 0x77777777u;                          // within half a table: __byte_perm looks at three bits
    unsigned half = 0x32103210u | (nibbles & 0x88888888u) >> 1;      // which half: byte i of the first or the second
    unsigned a = __byte_perm(__byte_perm(table[0], table[1], index), __byte_perm(table[2], table[3], index), half);
    index >>= 16, half >>= 16;
    unsigned b = __byte_perm(__byte_perm(table[0], table[1], index), __byte_perm(table[2], table[3], index), half);
    low = __byte_perm(a, b, 0x6420);
    high = __byte_perm(a, b, 0x7531);
}

/* Four bytes 1 … 127, negated where the bit (of four) is set: two's complement carries nothing over, as no byte is 0. */
__device__ __forceinline__ int negate_bytes(unsigned bytes, unsigned four) {
    unsigned ones = spread_bits(four & 15);
    return (int)((bytes ^ ones * 255) + ones);
}

/* Eight signs of which seven are stored: the number of negative ones is even. */
__device__ __forceinline__ unsigned eighth_sign(unsigned seven) { return seven | (__popc(seven) & 1) << 7; }
