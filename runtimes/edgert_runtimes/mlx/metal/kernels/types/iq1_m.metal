// IQ1_M: uchar qs[32], uchar qh[16], ushort scales[4]; w = d * (2 s + 1) * (point +- 1/8). Point i of a block (of eight weights
// each) has the index qs[i] and, above, the low three bits of half i of qh; 1/8 is subtracted where the fourth is set. Bits
// 3 (g % 4) and the next two of scales[g / 4] are s of the 16 weights g; the upper four bits of scales are those of the half d,
// lowest first. Source: block_iq1_m of ggml-common.h, dequantize_row_iq1_m of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    const device uchar* scales = block + 48;
    uint bits = 0;
    for (uint i = 0; i < 4; ++i) bits |= short_at(scales + 2 * i) >> 12 << 4 * i;
    float d = float(as_type<half>(ushort(bits)));
    UNROLL for (uint i = 0; i < 4; ++i) {
        uint g = 2 * part + i / 2;
        float step = d * float(2 * (short_at(scales + 2 * (g / 4)) >> 3 * (g % 4) & 7) + 1);
        uint high = nibble_at(block + 32, 4 * part + i);
        uint index = block[4 * part + i] | (high & 7) << 8;
        float shift = high & 8 ? -0.125f : 0.125f;
        UNROLL for (uint j = 0; j < 8; ++j) w[8 * i + j] = step * (signed_byte_of(grid[2 * index + j / 4], j % 4) + shift);
    }
}
