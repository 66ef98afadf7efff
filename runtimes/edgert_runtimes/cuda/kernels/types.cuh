/* Every type of weights, and the product of a part of a row with activations. */
#pragma once
#include "activations.cuh"
#include "codebooks.cuh"
#include "superblocks.cuh"

/* Plain numbers: `load4` needs i and the row's length to be multiples of four. */
struct F32 {
    static constexpr bool FLOAT = true;
    static constexpr int SIZE = 1, BYTES = 4;
    static __device__ __forceinline__ float load(const u8 *row, i64 i) { return ((const float *)row)[i]; }
    static __device__ __forceinline__ float4 load4(const u8 *row, i64 i) { return *(const float4 *)((const float *)row + i); }
};
template <float (*widen)(u16)> struct Halves {
    static constexpr bool FLOAT = true;
    static constexpr int SIZE = 1, BYTES = 2;
    static __device__ __forceinline__ float value(unsigned bits) { return widen((u16)bits); }
    static __device__ __forceinline__ float load(const u8 *row, i64 i) { return widen(((const u16 *)row)[i]); }
    static __device__ __forceinline__ float4 load4(const u8 *row, i64 i) {
        uint2 w = *(const uint2 *)((const u16 *)row + i);
        return make_float4(widen((u16)w.x), widen((u16)(w.x >> 16)), widen((u16)w.y), widen((u16)(w.y >> 16)));
    }
};
struct F16 : Halves<half_to_float> {};
struct BF16 : Halves<bf16_to_float> {};

template <class W> __device__ __forceinline__ i64 row_bytes(int k) { return (i64)(k / W::SIZE) * W::BYTES; }

/* How many pieces a row is multiplied in: parts of 32 weights, or four (or single) numbers. */
template <class W> __device__ __forceinline__ int pieces(int k) {
    if constexpr (W::FLOAT)
        return k % 4 ? k : k / 4;
    else
        return k / 32;
}

/* Weights of one piece of a row, ready for as many rows of activations as one likes. */
template <class W, bool = W::FLOAT> struct Piece;

template <class W> struct Piece<W, true> {
    float4 w;
    int place, single;
    __device__ __forceinline__ Piece(const u8 *row, int piece, int k) : single(k % 4) {
        place = single ? piece : 4 * piece;
        w = single ? make_float4(W::load(row, place), 0, 0, 0) : W::load4(row, place);
    }
    __device__ __forceinline__ float dot(const float *x, const s8 *, const float4 *) const {
        if (single) return w.x * x[place];
        float4 a = *(const float4 *)(x + place);
        return w.x * a.x + w.y * a.y + w.z * a.z + w.w * a.w;
    }
};

template <class W> struct Piece<W, false> {
    Part part;
    int place[2];
    __device__ __forceinline__ Piece(const u8 *row, int piece, int) {
        int block = piece / W::PARTS, index = piece % W::PARTS;
        W::decode(row + (i64)block * W::BYTES, index, part);
        place[0] = block * W::SIZE + W::at(index, 0);
        place[1] = block * W::SIZE + W::at(index, 1);
    }
    __device__ __forceinline__ float dot(const float *, const s8 *codes, const float4 *scales) const {
        float sum = 0;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int4 a = *(const int4 *)(codes + place[half]);
            float4 s = scales[place[half] / 32];
            const int *q = &part.q[4 * half];
            int dot = __dp4a(q[0], a.x, __dp4a(q[1], a.y, __dp4a(q[2], a.z, __dp4a(q[3], a.w, 0))));
            sum += part.scale[half] * s.x * (float)dot;
            if constexpr (W::MIN) sum += part.min[half] * (place[half] & 16 ? s.z : s.y);
        }
        return sum;
    }
};
